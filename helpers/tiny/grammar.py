"""The grammar of the embedded world: short film reviews, and plain prose that is not about films.

A review is written from a plan (plain, negated, contrast or mixed) and labelled by what it says overall. The words are
shared by both labels on purpose: "not boring at all" is praise, "nothing wonderful about the music" is not. So counting
words is a poor judge, and a model has to read the sentence.

Templates are plain strings. `{name}` is filled from the review's own facts (its genre, its leading actor) or from a rule.
A rule with two sides, praise and blame, follows the side being written; `{name~}` takes the other side.
"""

import hashlib
import random
import re
from functools import lru_cache

WORDS = (15, 45)
"""Shortest and longest text, in words."""
TRAIN_SEED, TEST_SEED = 1, 2

# ---------------------------------------------------------------------------------------------------------------- facts

GENRES = (
    "thriller", "comedy", "western", "musical", "romance", "mystery", "drama", "war film", "heist film", "road movie",
    "spy film", "love story", "ghost story", "crime film", "horror film", "fantasy", "biopic", "period drama",
)  # fmt: skip
TITLE_FIRST = (
    "Silent", "Golden", "Broken", "Distant", "Crooked", "Hidden", "Frozen", "Paper", "Midnight", "Scarlet", "Borrowed",
    "Last", "Second", "Northern", "Quiet", "Painted",
)  # fmt: skip
TITLE_LAST = (
    "Orchard", "Harbour", "Lantern", "River", "Garden", "Station", "Bridge", "Letter", "Winter", "Mirror", "Island",
    "Summer", "Road", "Witness", "Kingdom", "Sparrow",
)  # fmt: skip
ACTRESSES = ("Anna", "Clara", "Ruth", "Nina", "Helen", "Marta", "Irene", "Judith")
ACTORS = ("Peter", "Daniel", "Oscar", "Hugo", "Simon", "Victor", "Leon", "Martin")
SURNAMES = ("Harrow", "Vance", "Pell", "Castell", "Brandt", "Quill", "Ashby", "Corrigan", "Winslow", "Marlin", "Thorne",
            "Keller")  # fmt: skip
DIRECTORS = (
    "Aldous",
    "Brennick",
    "Dorn",
    "Ellwood",
    "Ferrand",
    "Garrick",
    "Holm",
    "Lorimer",
    "Novak",
    "Stroud",
)
ROLES = (
    "a retired detective", "a young nurse", "a country doctor", "a widowed teacher", "a night watchman",
    "a small-town lawyer", "a lonely postman", "a ship's captain", "a piano teacher", "a homesick soldier",
    "a careful thief", "a stubborn farmer", "a taxi driver", "a travelling salesman", "a jazz singer", "an old boxer",
)  # fmt: skip

# --------------------------------------------------------------------------------------------------- what can be judged
# name: (noun phrase, verb, praise adjectives, blame adjectives, praise verb phrases, blame verb phrases)

ASPECTS = {
    "acting": (
        "the acting", "is",
        "superb wonderful great brilliant excellent natural convincing subtle moving",
        "wooden awful terrible flat weak lifeless stiff dreadful clumsy",
        ("holds your attention in every scene", "makes you believe every word", "is a pleasure from start to finish",
         "lifts even the smallest scene"),
        ("belongs in a school play", "drains the life out of every scene", "makes it hard to care about anyone",
         "never rises above a bored whisper"),
    ),
    "cast": (
        "the cast", "are",
        "superb wonderful great brilliant excellent charming likeable strong",
        "dull awful terrible flat weak lifeless bored forgettable",
        ("work together beautifully", "seem to be enjoying every minute", "make the most of every line",
         "bring real warmth to the story"),
        ("look as if they would rather be elsewhere", "have nothing to work with", "seem to have met that morning",
         "sleepwalk through the whole thing"),
    ),
    "plot": (
        "the plot", "is",
        "clever gripping fresh tight brilliant great surprising original",
        "predictable thin confusing silly dull tired messy boring",
        ("keeps you guessing until the last scene", "moves along without a wasted minute", "holds together beautifully",
         "takes turns that nobody could see coming"),
        ("falls apart after twenty minutes", "makes no sense", "goes round in circles", "never gets going",
         "has more holes than a net"),
    ),
    "story": (
        "the story", "is",
        "gripping moving charming clever wonderful touching great honest",
        "thin dull silly tired predictable boring pointless muddled",
        ("draws you in from the first minute", "stays with you for days", "has a big heart",
         "finds something new to say"),
        ("drags from start to finish", "goes nowhere", "has been told better a hundred times", "runs out of ideas early"),
    ),
    "script": (
        "the script", "is",
        "sharp funny witty clever brilliant great intelligent excellent",
        "clumsy lazy silly awful flat lifeless terrible dreary",
        ("gives everyone something good to say", "trusts the audience to keep up", "crackles with good lines"),
        ("gives the actors nothing to do", "explains everything twice", "sounds like a first draft",
         "mistakes shouting for drama"),
    ),
    "dialogue": (
        "the dialogue", "is",
        "sharp funny witty natural clever brilliant great believable",
        "clumsy wooden silly awful flat lifeless terrible dreary",
        ("sounds like real people talking", "had the whole room laughing", "sparkles from the first line"),
        ("made me wince", "sounds as if nobody read it aloud", "is one worn-out phrase after another"),
    ),
    "music": (
        "the music", "is",
        "beautiful wonderful haunting lovely great stirring superb memorable",
        "dreadful loud dull cheap irritating awful forgettable terrible",
        ("lifts every scene", "stays with you for days", "says more than words could", "is worth the ticket alone"),
        ("drowns out half the dialogue", "gave me a headache", "tells you what to feel at every turn",
         "sounds like a broken radio"),
    ),
    "pacing": (
        "the pacing", "is",
        "perfect brisk lively confident excellent sure great",
        "slow uneven tedious dreadful awful clumsy terrible",
        ("never lets up", "gives every scene room to breathe", "never puts a foot wrong"),
        ("sent half the row to sleep", "kills every bit of tension", "turns two hours into four"),
    ),
    "ending": (
        "the ending", "is",
        "moving satisfying perfect wonderful brilliant beautiful great clever",
        "weak rushed silly predictable awful confusing terrible lazy",
        ("left me in happy tears", "ties everything together", "is worth the wait", "took my breath away"),
        ("left me cold", "throws everything away", "comes out of nowhere", "is an insult to the audience"),
    ),
    "camera": (
        "the camera work", "is",
        "beautiful elegant inventive stunning excellent superb lovely wonderful",
        "shaky clumsy dull flat ugly cheap awful dreary",
        ("turns every street into a painting", "catches every small gesture", "makes the most of the landscape"),
        ("made me feel seasick", "hides whatever it should show", "looks like a holiday video"),
    ),
    "direction": (
        "the direction", "is",
        "assured confident imaginative brilliant sensitive sharp superb excellent",
        "clumsy lazy careless flat dull tired weak awful",
        ("never puts a foot wrong", "gets the best out of everyone", "builds the tension with great care"),
        ("has no idea where to look", "wastes a great cast", "lets every good idea slip away"),
    ),
    "characters": (
        "the characters", "are",
        "believable charming likeable funny memorable wonderful great warm",
        "flat dull silly unlikeable forgettable thin boring tiresome",
        ("feel like people you know", "grow on you with every scene", "are drawn with real care"),
        ("never become more than names", "behave like idiots", "are impossible to care about"),
    ),
    "jokes": (
        "the jokes", "are",
        "funny sharp fresh clever brilliant great witty",
        "tired stale flat cheap crude awful terrible",
        ("had the whole room laughing", "come thick and fast", "land every single time"),
        ("fall flat every time", "were old thirty years ago", "met with total silence"),
    ),
    "sets": (
        "the sets and costumes", "are",
        "beautiful lovely stunning wonderful elegant splendid great",
        "cheap ugly dreary shabby dull awful terrible",
        ("are a feast for the eyes", "take you straight into another time", "are made with love"),
        ("look as if they cost nothing", "belong in a shop window", "look like leftovers"),
    ),
    "first half": (
        "the first half", "is",
        "gripping funny lively charming brilliant great wonderful",
        "slow tedious boring dull confusing awful messy",
        ("flies by", "draws you straight in", "sets everything up with great care"),
        ("drags terribly", "tests your patience", "goes nowhere"),
    ),
    "second half": (
        "the second half", "is",
        "gripping funny lively moving brilliant great wonderful",
        "slow tedious boring dull confusing awful messy",
        ("flies by", "takes off and never lands", "keeps every promise"),
        ("drags terribly", "falls to pieces", "throws it all away"),
    ),
    "lead": (
        "the lead performance", "is",
        "superb wonderful great brilliant moving subtle convincing excellent",
        "wooden awful terrible flat weak lifeless dull forgettable",
        ("deserves every prize going", "anchors the whole film", "is worth the ticket alone"),
        ("sinks the whole film", "never rings true", "is painful to watch"),
    ),
}  # fmt: skip
ASPECTS = {
    name: (noun, be, good.split(), bad.split(), praise, blame)
    for name, (noun, be, good, bad, praise, blame) in ASPECTS.items()
}
STRONG = set("great wonderful brilliant superb excellent awful terrible dreadful".split())
"""Adjectives that stand alone: "clever and fresh", but not "strong and great"."""
PARTS = ("plot", "script", "cast", "ending", "first half", "second half")
"""Aspects that a film is said to have: "the plot of", but "the music in"."""
COMEDIES = ("comedy", "musical", "romance", "road movie", "heist film", "love story")

# ---------------------------------------------------------------------------------------------------------------- rules

PLAIN_JUDGE = (
    "{np} {vp}", "{np} {vp}", "{np} {vp}", "{np} {be} {adj}", "{np} {be} {adj}", "{np} {be} {really} {adj}",
    "{np} {be} {really} {adj}", "{np} {be} {adj} and {adj}", "{np} {be} the {best} thing about it", "{I loved} {np}",
)  # fmt: skip
SOFT_JUDGE = (
    "{np} {be} {a little} {adj}",
    "{np} {be} {a little} {adj}",
    "{np} {be} {adj}",
    "{np} {vp}",
    "{I liked} {np}",
)
NEGATED_JUDGE = (
    "{np} {be} not {adj~} at all", "{np} {be} never {adj~}", "{np} {be} anything but {adj~}",
    "{np} {be} far from {adj~}", "there is nothing {adj~} about {np}", "nobody could call {np} {adj~}",
    "{np} {be} not {adj~} for a moment", "I would never call {np} {adj~}", "{np} {be} hardly {adj~}",
    "{np} {be} never once {adj~}", "{np} {be} {adj} and never {adj~}", "{I cannot fault} {np}",
    # a "no" that turns nothing round:
    "{np} {be} never less than {adj}", "{np} could not be more {adj}", "{np} {be} not only {adj} but {adj}",
    "there is no denying that {np} {be} {adj}", "{np} {be} nothing if not {adj}", "there is no doubt that {np} {be} {adj}",
    "{np} {be} not just {adj} but {adj}", "nobody could miss how {adj} {np} {be}",
)  # fmt: skip

RULES = {
    "I loved": (("I loved", "I admired", "I really liked"), ("I could not stand", "I disliked", "I was let down by")),
    "I liked": (("I liked", "I enjoyed"), ("I had trouble with", "I was not sure about")),
    "I cannot fault": (("I cannot fault", "I have no complaints about"), ("I cannot praise", "I did not care for")),
    "best": (("best",), ("worst",)),
    "a little": (("often", "sometimes"), ("a little", "rather", "sometimes")),
    "really": ("really", "truly", "simply"),
    "kin": ("my sister", "my brother", "my wife", "my husband", "my father", "my mother", "my daughter", "my son",
            "my uncle", "my aunt", "my cousin", "my neighbour", "my flatmate"),
    "kins": ("My sister", "My brother", "My wife", "My husband", "My father", "My mother", "My daughter", "My son",
             "My uncle", "My aunt", "My cousin", "My neighbour", "My flatmate", "A friend", "A colleague"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "day part": ("evening", "night", "afternoon"),
    "number": ("two", "three", "four", "five", "six"),
    "times": ("twice", "three times", "four times"),
    "minutes": ("ten", "twenty", "thirty", "forty"),
    "place": ("a harbour town", "a mountain village", "a small hotel", "a northern city", "wartime London",
              "a fishing village", "a seaside town", "a desert town", "a boarding school", "an old theatre"),
    "goal": ("goes back to an old family house", "is hired to find a missing painting", "loses everything in one night",
             "falls for a complete stranger", "takes the blame for a crime", "inherits a farm in the north",
             "finds a letter from the war", "has one week to pay an old debt", "sets out to find a lost brother",
             "is called back for one last job", "gets stuck on a night train", "is mistaken for somebody else"),
    "film": ("this film", "this film", "this {genre}", "this {genre}", "{title}", "this {genre} by {director}",
             "the new {genre} by {director}", "the latest film by {director}", "a {genre} called {title}"),
    "short film": ("this film", "this {genre}", "{title}"),
    "when": ("last night", "on {day}", "last week", "on a long flight", "at the local cinema", "on television",
             "with {kin}", "during the holidays", "at a small festival", "on a rainy {day}", "over the weekend",
             "on {day} {day part}"),
    "viewing": (
        "I watched {film} {when}", "I saw {film} {when}", "I caught {film} {when}", "I finally saw {film} {when}",
        "I finally watched {film} {when}", "we watched {film} {when}", "we went to see {film} {when}",
        "I sat down to watch {film} {when}", "I rented {film} {when}", "I came across {film} {when}",
        "last night I watched {film}", "last {day} we saw {film}", "last week I watched {film}",
        "on {day} {day part} we watched {film}", "on {day} I went to see {film}", "on {day} I watched {film}",
        "{kins} took me to see {film}", "{kins} took me to {short film}", "{kins} talked me into watching {film}",
        "{kins} lent me a copy of {short film}", "{kins} and I watched {film}", "{kins} and I went to see {film}",
        "{kins} wanted to see {film}", "{kins} asked me to watch {short film}", "{kins} chose {film} for our film night",
        "we picked {film} for {day} {day part}", "a group of us went to see {film} {when}",
        "I had an evening to myself and put on {short film}", "I knew nothing about {film} before I saw it",
        "I had no idea what to expect from {film}", "it took me {number} weeks to get round to {short film}",
        "I have now seen {short film} {times}", "{kins} told me to watch {short film}",
        "the local cinema showed {short film} on {day}", "our film club watched {film} {when}",
        "people keep asking me about {short film}",
    ),
    "casting": (
        "{actor} plays {role} in {short film}", "{actor} plays {role} who {goal}", "{actor} stars as {role} in {short film}",
        "in this {genre}, {actor} plays {role}", "in {title}, {actor} plays {role}", "{actor} is {role} in {short film}",
        "{actor} has the leading part in {short film}", "{short film} has {actor} as {role}",
        "the leading part in {short film} went to {actor}",
    ),
    "premise": (
        "this {genre} follows {role} who {goal}", "this {genre} is about {role} who {goal}",
        "{title} is about {role} who {goal}", "{title} follows {role} who {goal}",
        "{title} tells the story of {role} who {goal}", "{title} is a {genre} set in {place}",
        "set in {place}, this {genre} follows {role}", "set in {place}, {title} follows {role}",
        "{role} {goal} in this {genre}", "the story begins when {role} {goal}", "this is a {genre} about {role} who {goal}",
        "the film opens in {place}, where {role} {goal}", "{director} sets this {genre} in {place}",
        "there is a scene in {short film} where {role} {goal}", "the new film by {director} follows {role}",
        "here is a {genre} in which {role} {goal}",
    ),
    "moment": (
        "halfway through the second act", "halfway through {short film}", "about an hour into {short film}",
        "{minutes} minutes into {short film}", "by the end of the first act", "after the first half hour",
        "after {minutes} minutes of {short film}", "during the second half of {short film}",
        "during the last scene of {short film}", "before the first act was over", "by the middle of {short film}",
        "when {actor} first appeared", "in the middle of {short film}", "towards the end of {short film}",
        "{number} scenes into {short film}",
    ),
    "afterwards": (
        "when {kin} and I left the cinema", "on the way home from {short film}", "on the way home from the cinema",
        "when the lights came up", "when the credits of {title} rolled", "after seeing {short film} with {kin}",
        "the morning after {short film}", "at the end of {short film}",
    ),
    "afterwards reaction": (
        ("I had a smile on my face", "I could not stop talking about it", "we agreed that it had been {a film adj} film",
         "I already wanted to see it again", "I was humming the music", "I did not regret a thing",
         "neither of us had a bad word to say"),
        ("I had a headache", "I could not remember a single scene", "we agreed that it had been {a film adj} film",
         "I already wanted to forget it", "I was asking for my money back", "I did not want to talk about it",
         "neither of us had a good word to say"),
    ),
    "moment reaction": (
        ("I was completely hooked", "I had forgotten where I was", "I was laughing out loud", "I was on the edge of my seat",
         "I knew that I was watching something special", "nobody in the room was bored", "I had a smile on my face",
         "I had stopped worrying and started to enjoy myself", "I was not thinking about anything else"),
        ("I was looking at my watch", "I was thinking about dinner", "I was ready to go home", "half the audience had left",
         "I had stopped caring", "I was fighting to stay awake", "nobody in the room was laughing",
         "I was not enjoying myself at all", "I could only feel sorry for the cast"),
    ),
    "performance": (
        ("{she} carries every scene", "{she} has never been better", "you cannot take your eyes off {her}",
         "{she} makes every line count", "{she} is never less than convincing", "{she} gives the part real depth",
         "{she} is {really} {good acting}", "{she} is not wooden for a moment"),
        ("{she} sleepwalks through the part", "{she} has never been worse", "you do not believe a word {she} says",
         "{she} reads every line like a shopping list", "{she} is never convincing", "{she} looks bored throughout",
         "{she} is {really} {bad acting}", "even {she} cannot save it"),
    ),
    "good acting": ("superb", "wonderful", "great", "brilliant", "excellent", "moving", "charming"),
    "bad acting": ("wooden", "awful", "terrible", "stiff", "dreadful", "lifeless", "miscast"),
    "reaction": (
        ("I loved every minute of it", "I was hooked from the first scene", "I laughed until I cried", "I could not look away",
         "I enjoyed it from start to finish", "I came out smiling", "I would happily sit through it again",
         "the film won me over completely", "I have been recommending it ever since", "the whole thing was a real treat",
         "the time flew by", "it made my week", "I had a wonderful time", "it turned out to be {a film adj} film",
         "the film was {really} {film adj}", "it deserves all the praise it gets"),
        ("I regretted every minute of it", "I fell asleep before the end", "I kept checking my watch",
         "I wanted my money back", "I gave up before the end", "I was bored within ten minutes",
         "I wish I had stayed at home", "the film lost me completely", "the whole thing was a waste of an evening",
         "the time crawled by", "it spoiled my week", "I had a miserable time", "it turned out to be {a film adj} film",
         "the film was {really} {film adj}", "it deserves all the complaints it gets"),
    ),
    "negated reaction": (
        ("I never once checked my watch", "I did not want it to end", "I was not bored for a single second",
         "I could not find a dull moment", "it did not disappoint me", "the film was not {film adj~} at all",
         "the film was never once {film adj~}", "the whole thing was anything but {film adj~}", "nothing in it was {film adj~}",
         "I was never bored", "I have no complaints", "there was not a single {film adj~} scene", "I did not regret it",
         "the film was never less than {film adj}", "the film could not have been more {plain adj}",
         "there is no denying that it was {film adj}"),
        ("I never once laughed", "I could not wait for it to end", "I did not enjoy a single second",
         "I could not find one great moment", "it did not move me", "the film was not {film adj~} at all",
         "the film was never once {film adj~}", "the whole thing was anything but {film adj~}", "nothing in it was {film adj~}",
         "I was never interested", "I have nothing good to say", "there was not a single {film adj~} scene",
         "I did not enjoy it", "the film was never less than {film adj}",
         "the film could not have been more {plain adj}", "there is no denying that it was {film adj}"),
    ),
    "film adj": (
        ("great", "wonderful", "brilliant", "excellent", "funny", "moving", "charming", "clever", "gripping", "delightful",
         "memorable", "beautiful", "superb"),
        ("dull", "boring", "awful", "terrible", "predictable", "tedious", "slow", "lifeless", "forgettable", "silly",
         "dreary", "confusing", "dreadful"),
    ),
    "plain adj": (
        ("funny", "moving", "charming", "clever", "gripping", "delightful", "memorable", "beautiful"),
        ("boring", "predictable", "tedious", "lifeless", "forgettable", "silly", "dreary", "confusing"),
    ),
    "a film adj": ("a {film adj}", "a {film adj}", "a truly {film adj}"),
    "director does": (
        ("knows exactly what to do", "trusts the audience", "handles every scene with care", "has a great eye for detail",
         "gets the best out of the cast", "does not waste a single minute", "never makes a false move"),
        ("has no idea what to do", "does not trust the audience", "throws everything at the screen and hopes",
         "should have cut half an hour", "wastes a great cast", "never makes an interesting choice",
         "forgets to tell a story"),
    ),
    "compared": (
        ("this is the best of them", "this one is better than all the rest", "none of them is as good as this one",
         "this is not the weakest by any means"),
        ("this is the worst of them", "this one is weaker than all the rest", "none of them is as bad as this one",
         "this is not the best by any means"),
    ),
    "hedge": ("to my mind,", "for me,", "if I am honest,", "in my view,", "I have to say that", "I must admit that",
              "I think that", "it seems to me that"),
    "but": ("but", "yet"),
    "turn": ("still,", "even so,", "all the same,", "but", "however,"),
    "aside": ("it runs for just under two hours", "{director} spent {number} years on it", "most of it is set in {place}",
              "it is the second film by {director}", "{kin} came along as well",
              "there were {number} of us in the room", "I went on my own", "it was filmed in {place}"),
    "surprise": (
        ("I expected to hate it, {but} {overall}", "I expected {a film adj~} film and got {a film adj} one",
         "I was told that it was {film adj~}, {but} it was {film adj}",
         "do not believe anyone who calls it {film adj~}", "{kin} called it {film adj~}, and I could not disagree more",
         "some people call it {film adj~}, but they are wrong", "I was afraid it would be {film adj~}, and it was not",
         "I feared the worst, {but} {overall}", "the trailer looked {film adj~}, {but} the film is not"),
        ("I expected to love it, {but} {overall}", "I expected {a film adj~} film and got {a film adj} one",
         "I was told that it was {film adj~}, {but} it was {film adj}",
         "do not believe anyone who calls it {film adj~}", "{kin} called it {film adj~}, and I could not disagree more",
         "some people call it {film adj~}, but they are wrong", "I hoped it would be {film adj~}, and it was not",
         "I hoped for the best, {but} {overall}", "the trailer looked {film adj~}, {but} the film is not"),
    ),
    "company": (
        ("{kin} loved it too", "the whole audience clapped at the end", "{kin} hated it, but I did not",
         "{kin} never stopped laughing", "nobody left before the end", "{kin} was not impressed, but I was",
         "{kin} wants to see it again"),
        ("{kin} hated it too", "half the audience left before the end", "{kin} loved it, but I did not",
         "{kin} never stopped yawning", "nobody clapped at the end", "{kin} was impressed, but I was not",
         "{kin} wants to forget it"),
    ),
    "overall": ("{reaction}", "{negated reaction}"),
    "verdict": (
        ("highly recommended", "do not miss it", "four stars out of five", "five stars out of five", "well worth your time",
         "a {film adj} film", "one of the best {genres} of the year", "I recommend it warmly", "nine out of ten",
         "eight out of ten", "see it if you can", "go and see it", "a {film adj} {genre} with a {film adj} ending",
         "ten out of ten", "I will watch it again", "what a {film adj} film!",
         "what more could anyone want?", "I give it four stars out of five", "it gets nine out of ten from me",
         "five stars without a second thought", "a solid eight out of ten", "the best evening I have had in weeks",
         "my favourite {genre} of the year"),
        ("avoid it", "give it a miss", "one star out of five", "two stars out of five", "save your money",
         "a {film adj} film", "one of the worst {genres} of the year", "I want those two hours back", "two out of ten",
         "three out of ten", "skip it if you can", "stay at home instead", "a {film adj} {genre} with a {film adj} ending",
         "one out of ten", "I will forget it by tomorrow", "what a {film adj} film!",
         "what were they thinking?", "I give it two stars out of five", "it gets two out of ten from me",
         "one star, and that is generous", "a poor three out of ten", "the longest evening I have had in weeks",
         "my least favourite {genre} of the year"),
    ),
    "negated verdict": (
        ("you will not be disappointed", "I cannot recommend it enough", "not to be missed", "not a {film adj~} film at all",
         "there is nothing {film adj~} about it", "you will not regret it", "you will not find a better {genre} this year",
         "not one minute is wasted", "it is never {film adj~}", "never {film adj~}, never {film adj~}",
         "no doubt about it, a {film adj} film", "it is never less than {film adj}", "it could not be more {plain adj}",
         "there is no other word for it but {film adj}"),
        ("you will not be impressed", "I cannot recommend it", "not worth the ticket", "not a {film adj~} film at all",
         "there is nothing {film adj~} about it", "you will not enjoy it", "you will not find a worse {genre} this year",
         "not one minute is worth it", "it is never {film adj~}", "never {film adj~}, never {film adj~}",
         "no doubt about it, a {film adj} film", "it is never less than {film adj}", "it could not be more {plain adj}",
         "there is no other word for it but {film adj}"),
    ),
    "mixed verdict": (
        ("on balance I enjoyed it", "it is not perfect, but I would recommend it", "three and a half stars out of five",
         "flawed, but worth seeing", "the good outweighs the bad", "on the whole it works", "worth seeing once",
         "it has its faults, but I liked it", "seven out of ten", "I would still see it again"),
        ("on balance I did not enjoy it", "it is not terrible, but I would not recommend it", "two and a half stars out of five",
         "it has its moments, but not enough of them", "the bad outweighs the good", "on the whole it does not work",
         "not worth seeing twice", "it has its charms, but I did not like it", "four out of ten",
         "I would not see it again"),
    ),
}  # fmt: skip

_SLOT = re.compile(r"\{([^{}]+)\}")
_AN = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")


class _Page:
    """One text in the making: its facts, and what has been used already."""

    def __init__(self, rng, facts):
        self.rng = rng
        self.facts = facts
        self.aspects = []
        self.used = set()

    def fill(self, template, side=1):
        """Fill a template. side: 1 praise, 0 blame."""
        return _SLOT.sub(lambda slot: self._slot(slot[1], side), template)

    def _slot(self, name, side):
        if name[-1] == "~":
            name, side = name[:-1], 1 - side
        if name in self.facts:
            return self.facts[name]
        options = RULES[name]
        if type(options[0]) is tuple:
            options = options[1 - side]
        return self.fill(self.pick(options), side)

    def pick(self, options):
        """One of options; where there are many, rather one that this text has not used yet."""
        for _ in range(4 if len(options) > 4 else 1):
            choice = options[int(self.rng.random() * len(options))]
            if choice not in self.used:
                break
        if choice != "{np} {vp}":
            self.used.add(choice)
        return choice

    def judge(self, side, forms=None, film=""):
        """A clause on one aspect not judged yet in this review.

        forms: PLAIN_JUDGE, NEGATED_JUDGE or SOFT_JUDGE; None takes plain or negated. film: named in the clause, which
        then begins with the aspect ("the plot of this film ...").
        """
        if forms is None:
            forms = NEGATED_JUDGE if self.rng.random() < 0.25 else PLAIN_JUDGE
        if film:
            forms = [form for form in forms if form.startswith("{np}")]
        if not self.aspects:
            self.aspects = list(ASPECTS)
            if self.facts["genre"] not in COMEDIES:
                self.aspects.remove("jokes")
            self.rng.shuffle(self.aspects)
        aspect = self.aspects.pop()
        noun, be, good, bad, praise, blame = ASPECTS[aspect]
        if film:
            noun += f" {'of' if aspect in PARTS else 'in'} {film}"
        same, other, does = (good, bad, praise) if side else (bad, good, blame)
        form = self.pick(forms)
        if form.count("{adj}") == 2 or "{a little}" in form or "more" in form:
            same = [adjective for adjective in same if adjective not in STRONG]
        while "{adj}" in form:
            form = form.replace(
                "{adj}", self.pick([adjective for adjective in same if adjective not in form]), 1
            )
        form = form.replace("{adj~}", self.pick(other)).replace("{vp}", self.pick(does))
        return self.fill(form.replace("{np}", noun).replace("{be}", be), side)


def _facts(rng):
    def pick(options):
        return options[int(rng.random() * len(options))]

    woman = rng.random() < 0.5
    genre = pick(GENRES)
    return {
        "genre": genre,
        "genres": genre[:-1] + "ies" if genre.endswith("y") else genre + "s",
        "title": f"The {pick(TITLE_FIRST)} {pick(TITLE_LAST)}",
        "actor": f"{pick(ACTRESSES if woman else ACTORS)} {pick(SURNAMES)}",
        "she": "she" if woman else "he",
        "her": "her" if woman else "him",
        "director": pick(DIRECTORS),
        "role": pick(ROLES),
    }


def _sentences(parts):
    text = " ".join(part[0].upper() + part[1:] + ("" if part[-1] in "?!" else ".") for part in parts)
    return _AN.sub(r"\1n ", text)


# ---------------------------------------------------------------------------------------------------------------- plans


def _opening(page, side, strong, forms=None):
    """The first sentence: neutral words first, then a clause on one side.

    strong: the clause may judge the whole film; otherwise it judges one part of it, so that a later sentence can disagree.
    forms: as in `_Page.judge`.
    """
    rng, negated = page.rng, forms is NEGATED_JUDGE

    def clause():
        if strong and rng.random() < 0.6:
            return page.fill("{negated reaction}" if negated else "{reaction}", side)
        return page.judge(side, forms)

    kind = rng.random()
    if kind < 0.36:
        joint = page.pick((" and ", ", and "))
        return page.fill("{viewing}") + joint + clause()
    if kind < 0.50:
        start = page.fill("{casting}")
        return start + ", and " + (page.judge(side, forms) if forms else page.fill("{performance}", side))
    if kind < 0.68:
        return page.fill("{premise}") + ", and " + clause()
    if kind < 0.76 and strong and not forms:
        when = page.pick(("moment", "moment", "afterwards"))
        return page.fill(f"{{{when}}}, {{{when} reaction}}", side)
    if kind < 0.80 and not negated:
        return page.fill(
            page.pick(
                (
                    "the director of {short film} {director does}",
                    "the director of this {genre} {director does}",
                )
            ),
            side,
        )
    if kind < 0.86 and strong:
        return page.fill(page.pick((
            "I have seen every film by {director}, and {compared}",
            "I have watched {number} {genres} this month, and {compared}",
            "out of the {number} {genres} I saw this year, {compared}",
        )), side)  # fmt: skip
    return page.judge(side, forms, page.fill("{short film}"))


def _body(page, side, forms=None):
    negated = forms is NEGATED_JUDGE
    draw = page.rng.random()
    if draw < 0.35:
        return page.judge(side, forms) + ", and " + page.judge(side, forms)
    if draw < 0.55:
        return page.judge(side, forms)
    if draw < 0.7:
        return page.fill("{hedge} ") + page.judge(side, forms)
    if draw < 0.8:
        return page.fill("{surprise}", side)
    if draw < 0.86:
        return page.fill("{company}", side)
    return page.fill("{negated reaction}" if negated else "{overall}", side)


def _plain(page, side):
    parts = [_opening(page, side, True)]
    if page.rng.random() < 0.06:  # a few begin with the verdict, as people do
        parts.insert(0, page.fill("{verdict}", side))
    if page.rng.random() < 0.12:
        parts.append(page.fill("{aside}"))
    parts += [_body(page, side) for _ in range(page.pick((0, 1, 1, 2)))]
    if page.rng.random() < 0.8:
        parts.append(page.fill(page.pick(("{verdict}", "{verdict}", "{negated verdict}")), side))
    return parts


def _negated(page, side):
    parts = [_opening(page, side, True, NEGATED_JUDGE)]
    parts += [_body(page, side, NEGATED_JUDGE) for _ in range(page.pick((0, 1, 1, 2)))]
    if page.rng.random() < 0.7:
        parts.append(page.fill("{negated verdict}", side))
    return parts


def _contrast(page, side):
    other, rng = 1 - side, page.rng
    draw = rng.random()
    if draw < 0.35:
        start = page.fill("{viewing}")
        parts = [f"{start}, and although {page.judge(other, SOFT_JUDGE)}, {page.fill('{overall}', side)}"]
    elif draw < 0.6:
        parts = [_opening(page, other, False, SOFT_JUDGE) + page.fill(", {but} {overall}", side)]
    else:
        parts = [_opening(page, other, False, SOFT_JUDGE)]
        parts.append(page.fill("{turn} {overall}", side))
    if rng.random() < 0.5:
        parts.append(_body(page, side))
    parts.append(page.fill(page.pick(("{verdict}", "{negated verdict}")), side))
    return parts


def _mixed(page, side):
    first = page.pick((side, 1 - side))
    parts = [_opening(page, first, False, SOFT_JUDGE)]
    good, bad = page.judge(1, SOFT_JUDGE), page.judge(0, SOFT_JUDGE)
    parts.append(
        page.pick(
            (f"{good}, but {bad}", f"{bad}, but {good}", f"although {bad}, {good}", f"although {good}, {bad}")
        )
    )
    parts.append(page.fill("{mixed verdict}", side))
    return parts


def _simple(page, side):
    parts = [_opening(page, side, True, PLAIN_JUDGE)]
    for _ in range(page.pick((1, 2))):
        parts.append(
            page.judge(side, PLAIN_JUDGE) if page.rng.random() < 0.6 else page.fill("{reaction}", side)
        )
    parts.append(page.fill("{verdict}", side))
    return parts


PLANS = {"simple": _simple, "plain": _plain, "negated": _negated, "contrast": _contrast, "mixed": _mixed}
SIMPLE = ("simple",)
"""Praise in words of praise, blame in words of blame: a model's first lessons. Not part of the usual reviews."""
USUAL = ("plain",) * 10 + ("negated",) * 4 + ("contrast",) * 4 + ("mixed",) * 2
HARD = ("negated", "contrast")


def write_planned(count, seed, plans):
    """count distinct reviews as (text, label, plan), half of them praise, in random order. plans: names in `PLANS`."""
    rng = random.Random(seed)
    seen, reviews = set(), []
    while len(reviews) < count:
        label = len(reviews) % 2
        plan = plans[int(rng.random() * len(plans))]
        while True:  # too long, too short or seen before: the same plan again, so that no plan is favoured
            text = _sentences(PLANS[plan](_Page(rng, _facts(rng)), label))
            if WORDS[0] <= text.count(" ") + 1 <= WORDS[1] and text not in seen:
                break
        seen.add(text)
        reviews.append((text, label, plan))
    rng.shuffle(reviews)
    return reviews


def write_reviews(count, seed):
    """Film reviews as a list of {"text": str, "label": int}: 1 praise, 0 blame, half each, all distinct."""
    return [{"text": text, "label": label} for text, label, _ in write_planned(count, seed, USUAL)]


def write_hard_reviews(count, seed):
    """Reviews, as `write_reviews`, in which negation or contrast decides the label."""
    return [{"text": text, "label": label} for text, label, _ in write_planned(count, seed, HARD)]


@lru_cache(maxsize=1)
def _splits():
    test = write_planned(2_000, TEST_SEED, USUAL)
    held_out = {text for text, _, _ in test}
    train = [review for review in write_planned(20_100, TRAIN_SEED, USUAL) if review[0] not in held_out]
    halves = [[review for review in train if review[1] == label][:10_000] for label in (0, 1)]
    train = halves[0] + halves[1]
    random.Random(TRAIN_SEED).shuffle(train)
    return train, test


def review_splits():
    """The course's reviews: (20,000 for training, 2,000 for testing), balanced, no text in both, always the same."""
    return tuple([{"text": text, "label": label} for text, label, _ in split] for split in _splits())


# ---------------------------------------------------------------------------------------------------------------- prose

PROSE_NAMES = ("Mrs Hale", "Mr Tully", "Old Joseph", "Rosa", "Edith", "Thomas", "Ellen", "Walter", "Grace", "Martha",
               "Henry", "Lucy", "Samuel", "Alice", "Frank")  # fmt: skip
TOWNS = ("Millbrook", "Eastwell", "Harrowgate", "Stonebridge", "Lowfield", "Ashford", "Greenhill", "Fairport", "Oakham",
         "Kingsmere")  # fmt: skip
PROSE = {
    "name": PROSE_NAMES,
    "other": ("the teacher", "the baker", "the doctor", "the postman", "a farmer", "a young couple", "the schoolchildren"),
    "town": TOWNS,
    "place": ("Northgate", "Seaford", "Brookside", "Whitby", "Longmere", "the coast", "the border", "the capital"),
    "kin": ("my sister", "my brother", "my father", "my mother", "my uncle", "my aunt", "my cousin", "my neighbour", "a friend"),
    "day": RULES["day"],
    "hour": ("six", "seven", "eight", "nine", "ten", "eleven"),
    "number": ("two", "three", "four", "five", "six", "ten", "twelve"),
    "hundreds": ("two", "three", "four", "five", "six"),
    "minutes": ("five", "ten", "fifteen", "twenty", "thirty"),
    "season": ("spring", "summer", "autumn", "winter"),
    "month": ("March", "April", "May", "June", "September", "October", "November"),
    "part": ("morning", "afternoon", "evening"),
    "sky": ("grey", "clear", "pale blue", "heavy with cloud", "almost white", "dark in the west"),
    "wind": ("a cold wind blew in from the sea", "a light rain fell on the roofs", "the fog lay over the fields",
             "snow began to fall in large flakes", "the sun came through the clouds", "the wind dropped at last",
             "thunder rolled along the valley", "the frost held until noon"),
    "out": ("the river", "the harbour", "the market", "the old mill", "the church", "the park", "the hill", "the railway line",
            "the school", "the library"),
    "veg": ("onions", "carrots", "potatoes", "leeks", "mushrooms", "tomatoes", "beans", "peppers"),
    "herb": ("parsley", "thyme", "pepper", "salt", "garlic", "bay leaves"),
    "dish": ("soup", "stew", "sauce", "pie", "broth", "curry"),
    "food": ("bread", "cheese", "apples", "fish", "eggs", "honey", "plums", "tea", "coffee"),
    "pan": ("a heavy pan", "a large pot", "an iron pan", "a deep dish"),
    "animal": ("dog", "cat", "horse", "goat", "hen", "grey cat", "small dog"),
    "ride": ("the early train", "the night bus", "a small ferry", "the coast road", "a hired car", "the slow train"),
    "thing": ("bicycle", "kettle", "clock", "radio", "door", "lamp", "chair", "window", "ladder", "fence"),
    "tool": ("a screwdriver", "a small hammer", "a dry cloth", "a sharp knife", "some glue", "a piece of wire", "warm water"),
    "plan": ("repair the bridge", "build a new school", "open a swimming pool", "plant a hundred trees", "close the old road",
             "move the bus station", "paint the town hall", "widen the main street"),
    "event": ("flower show", "spring fair", "bicycle race", "town meeting", "book sale", "harvest supper", "brass band concert"),
    "task": ("hung out the washing", "fed the hens", "swept the yard", "wrote a letter", "mended a coat", "cut the grass",
             "carried in the firewood", "cleaned the windows", "made a pot of tea", "picked apples"),
    "look": ("looked out over {out}", "walked down to {out}", "waited near {out}", "went round by {out}", "stopped at {out}"),
}  # fmt: skip
TOPICS = (
    (  # weather
        "the sky over {town} was {sky} on {day} {part}", "{wind}", "by {hour} o'clock {wind}",
        "it had rained for {number} days in {town}", "in {month} the days grow longer near {out}",
        "{wind}, and people stayed indoors", "more rain is expected on {day}", "{name} shut the windows and lit the fire",
        "the fields beyond {town} were still wet in the {part}", "a warm {season} was followed by an early frost",
        "children ran across the park when {wind}", "the forecast for {day} {part} speaks of snow on the hills",
    ),
    (  # cooking
        "cut the {veg} and the {veg} into small pieces", "heat some oil in {pan} and add the {veg}",
        "stir the {dish} for {minutes} minutes", "add {herb} and a little {herb}", "leave the {dish} to rest for {minutes} minutes",
        "{name} makes this {dish} with {veg} and {herb}", "serve the {dish} with {food} and a spoonful of cream",
        "cover {pan} and let the {veg} cook slowly", "my grandmother always put {herb} into her {dish}",
        "wash the {veg} in cold water and dry them", "taste the {dish} and add more {herb}",
        "pour the {dish} into {pan} and bake it until it is brown",
    ),
    (  # travel
        "we took {ride} from {town} to {place}", "the journey to {town} lasts {number} hours by {ride}",
        "there is a small hotel beside {out}", "{kin} had packed {food} and {food} for the road",
        "from the window we could see {out} and the roofs of {place}", "the road climbs past {out} and then turns north",
        "on {day} we walked from {out} to {out}", "the guide told us that {town} is nine hundred years old",
        "tickets for {ride} are sold near {out}", "we left {town} at {hour} in the {part}",
        "{ride} stops at {town} and again at {place}", "our bags were put on {ride} by mistake",
    ),
    (  # small-town news
        "the council of {town} has voted to {plan}", "work will begin in {month} and last {number} weeks",
        "the {event} in {town} will take place on {day}", "{name} has run the bakery near {out} for {number} years",
        "more than {hundreds} hundred people came to the {event}", "{other} told the meeting that the town should {plan}",
        "the road past {out} will be closed on {day} {part}", "a {animal} was found near {out} and taken home by {name}",
        "the library in {town} opens at {hour} on {day}", "the mayor thanked {other} for {number} years of work",
        "firemen were called to {out} on {day} {part}", "a plan to {plan} was put off until {month}",
    ),
    (  # how-to
        "to mend a {thing} you need {tool} and {tool}", "first clean the {thing} with {tool}",
        "loosen the screws and lift the {thing} off", "wait {minutes} minutes until it is dry",
        "then put the {thing} back and try it again", "if the {thing} still sticks, use {tool}",
        "never leave the {thing} out in the rain", "mark the place with a pencil before you start",
        "{name} once mended a {thing} with {tool}", "check the {thing} every {season}",
        "hold the {thing} with one hand and turn it slowly", "keep {tool} near you while you work on the {thing}",
    ),
    (  # everyday scenes
        "{name} got up at {hour} and {task}", "{kin} {task} before breakfast", "the {animal} slept beside the stove",
        "{name} {look} and then {task}", "on {day} {part} {kin} came by with {food}", "they sat at the table and talked about {town}",
        "the shop near {out} sells {food}, {food} and {food}", "a {animal} crossed the street in front of {name}",
        "{name} bought {food} and {food} at the market", "the children {look} after school",
        "the clock struck {hour} while {name} {task}", "in the {part} {kin} {look}",
    ),
)  # fmt: skip


def write_prose(count, seed):
    """Plain prose as a list of str: weather, cooking, travel, town news, how-to, everyday scenes. No reviews, all distinct."""
    rng = random.Random(seed)

    def fill(template):
        return _SLOT.sub(lambda slot: facts.get(slot[1]) or fill(rng.choice(PROSE[slot[1]])), template)

    texts = {}
    while len(texts) < count:
        facts = {slot: rng.choice(PROSE[slot]) for slot in ("town", "thing", "dish", "pan", "name")}
        topic = rng.choice(TOPICS)
        text = _sentences([fill(template) for template in rng.sample(topic, rng.choice((2, 3, 3, 4)))])
        if WORDS[0] <= text.count(" ") + 1 <= WORDS[1]:
            texts[text] = None
    return list(texts)


def fingerprint():
    """A hash of what the grammar writes. The build notes it, so that a test can tell when the models need a rebuild."""
    texts = [review["text"] for split in review_splits() for review in split]
    texts += [review["text"] for review in write_hard_reviews(1_000, 0)] + write_prose(1_000, 0)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
