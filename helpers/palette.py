"""The course's colours: Okabe and Ito's palette, told apart with any kind of colour vision (jfly.uni-koeln.de/color)."""

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, AMBER = "#56B4E9", "#E69F00"  # for BLUE and ORANGE where the page is dark
PURPLE = "#AA4499"  # Paul Tol's, darker than Okabe and Ito's, which is too pale for a thin line

# The same colour for the same thing, in every figure and diagram.
POLICY = BLUE  # the model that learns, and what became of it
REFERENCE = GREEN  # the frozen model
REWARD = PROXY = (
    ORANGE  # what the policy is paid: a judge, or a reward model, which notebook 10 calls the proxy
)
GOLD = AMBER  # the true taste, which no training sees
KL = PURPLE  # the distance from the reference, and its price
BEFORE = "#767676"  # the model before training, single numbers behind a mean, lines to compare with
BAND = "#E6E6E6"  # a range behind the lines
