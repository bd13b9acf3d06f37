"""A file of prompts is of the format that its ending says, or is refused with a sentence."""

import gzip
import json
import re
import zipfile

import pytest
from datasets import Dataset

from helpers.errors import CourseError
from helpers.project.prompts import split_prompts
from helpers.prompt_files import read_prompts

BOM = b"\xef\xbb\xbf"


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


PLAIN = ["I watched this", "The plot"]
READ = {
    "lines": (".txt", "I watched this\nThe plot\n", PLAIN),
    "a byte order mark": (".txt", BOM + b"I watched this\nThe plot", PLAIN),
    "marks of files put together": (".txt", BOM + b"I watched this\n" + BOM + b"The plot", PLAIN),
    "Windows": (".TXT", "I watched this\r\n\r\nThe plot\r\n", PLAIN),
    "old Macs": (".txt", "I watched this\rThe plot\r", PLAIN),
    "line separators inside": (
        ".txt",
        "He\u2028left\nShe\u0085stayed\n\x0cNew\x0bpage",
        ["He\u2028left", "She\u0085stayed", "New\x0bpage"],
    ),
    "the same twice": (".txt", "The plot\n\n \t\nThe plot", ["The plot"] * 2),
    "prose with commas": (
        ".txt",
        "The text, they say\nI, we watched\n[Applause]\n{sic}\n<b>Bold</b>",
        ["The text, they say", "I, we watched", "[Applause]", "{sic}", "<b>Bold</b>"],
    ),
    "csv": (
        ".csv",
        'id,prompt\n1,"I, we watched"\n2,NA\n',
        [{"prompt": "I, we watched", "id": "1"}, {"prompt": "NA", "id": "2"}],
    ),
    "csv of one column": (".csv", BOM + b'text\r\n"A ""b""\nc"\r\n\r\n""\r\n', ['A "b"\nc']),
    "both columns": (".csv", "text,prompt\nt,p\n", [{"prompt": "p", "text": "t"}]),
    "tsv": (".tsv", "prompt\tstars\nThe plot, so\t5\n", [{"prompt": "The plot, so", "stars": "5"}]),
    "jsonl": (".jsonl", '{"prompt": " The plot"}\n\n{"prompt": "So\\n"}\n', [" The plot", "So\n"]),
    "jsonl with more": (
        ".jsonl",
        '{"prompt": "a", "n": 1}\n{"text": "b", "tags": ["x"]}',
        [{"prompt": "a", "n": 1, "tags": None}, {"prompt": "b", "n": None, "tags": ["x"]}],
    ),
    "json of texts": (".json", '["The plot",\n "So", ""]', ["The plot", "So"]),
    "json of objects": (
        ".json",
        '[{"text": "So", "n": null}, "b"]',
        [{"prompt": "So", "n": None}, {"prompt": "b", "n": None}],
    ),
}


@pytest.mark.parametrize("name", READ)
def test_known_formats(tmp_path, name):
    ending, content, expected = READ[name]
    assert read_prompts(written(tmp_path, f"p{ending}", content)) == expected


def test_parquet(tmp_path):
    rows = [{"text": "The plot", "n": 3, "tags": ["a"]}, {"text": "So", "n": None, "tags": []}]
    Dataset.from_list(rows).to_parquet(tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet") == [
        {"prompt": "The plot", "n": 3, "tags": ["a"]},
        {"prompt": "So", "n": None, "tags": []},
    ]
    Dataset.from_list([{"prompt": "So"}]).to_parquet(tmp_path / "q.parquet")
    assert read_prompts(tmp_path / "q.parquet") == ["So"]
    Dataset.from_list([{"review": "So", "n": 1}]).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(CourseError, match=r"r.parquet, row 1: has 'review', 'n'. Expected prompt or text"):
        read_prompts(tmp_path / "r.parquet")
    whole = (tmp_path / "p.parquet").read_bytes()
    for name, content, says in [
        ("cut.parquet", whole[:-9], "cut.parquet: cannot be read as parquet"),
        ("not.parquet", b"prompt\nSo\n", "is no parquet file, although its name says so"),
        ("p.txt", whole, "is no text but parquet"),
        ("p.csv", whole, "is no text but parquet"),
    ]:
        with pytest.raises(CourseError, match=re.escape(says)):
            read_prompts(written(tmp_path, name, content))


ZIP = b"PK\x03\x04" + bytes(30)
REFUSED = {
    "UTF-16": (".txt", "The plot\n".encode("utf-16"), "line 1: is not UTF-8 text but UTF-16. Save the file as UTF-8"),
    "UTF-16, big end first": (".txt", b"\xfe\xff" + "So\n".encode("utf-16-be"), "UTF-16. Save"),
    "UTF-16 without its mark": (".txt", "The plot\n".encode("utf-16-le"), "holds a NUL byte, as files in UTF-16 do"),
    "UTF-32": (".txt", "The plot\n".encode("utf-32"), "Save the file as UTF-8"),
    "Latin-1": (".txt", "A\ncaf\xe9".encode("latin-1"), "line 2: is not UTF-8 text but in another encoding"),
    "Shift-JIS": (".csv", "prompt\n映画".encode("cp932"), "line 2: is not UTF-8"),
    "ISO-2022-JP": (".txt", "So\n映画".encode("iso2022_jp"), "line 2: holds the control character '\\x1b'"),
    "a NUL byte": (".txt", "A\nB\0C", "line 2: holds a NUL byte"),
    "a NUL byte in a CSV": (".csv", "prompt\nA\0", "line 2: holds a NUL byte"),
    "the end of a DOS file": (".txt", "A\nB\n\x1a", "line 3: holds the control character '\\x1a'"),
    "a spreadsheet": (".xlsx", ZIP, "its ending is '.xlsx'. Expected .txt with one prompt a line; .csv"),
    "a document": (".docx", ZIP, "its ending is '.docx'"),
    "no ending": ("", "The plot\n", "its ending is ''"),
    "gzip": (".txt.gz", gzip.compress(b"So"), "its ending is '.gz'"),
    "gzip by another name": (".txt", gzip.compress(b"So"), "line 1: is no text but compressed with gzip"),
    "a spreadsheet by another name": (".csv", ZIP, "is no text but a zip archive, as .xlsx"),
    "PDF": (".txt", "%PDF-1.7\n", "is no text but PDF"),
    "a web page": (".txt", "\n<!DOCTYPE html>\n<p>So", "is a web page, not one prompt a line"),
    "CSV": (".txt", 'id,prompt\n1,"I, we"\n', "line 1: is the header of a table, 'id,prompt', not one prompt a line. Let its name end in .csv"),
    "CSV with quotes": (".txt", BOM + b'\n"id", "Prompt"\n', "end in .csv"),
    "CSV of one column": (".txt", "text\nThe plot", "end in .csv"),
    "CSV with semicolons": (".txt", "id;prompt\n1;So", "with ';' between columns, where a .csv has commas"),
    "TSV": (".txt", "id\ttext\n1\tSo", "Let its name end in .tsv"),
    "JSON lines": (".txt", '{"prompt": "The plot"}\n{"prompt": "So"}', "is JSON lines, not one prompt a line. Let its name end in .jsonl"),
    "JSON": (".txt", '[\n "The plot",\n "So"]', "is JSON, not one prompt a line. Let its name end in .json."),
    "JSON with objects": (".txt", '[{"prompt": "The plot"}]', "end in .json."),
    "JSON over lines": (".txt", '{\n  "prompt": "The plot"\n}', "end in .json."),
    "JSON lines as JSON": (".json", '{"prompt": "a"}\n{"prompt": "b"}', "line 2: is JSON lines, whose ending is .jsonl"),
    "JSON as JSON lines": (".jsonl", '["a", "b"]', "line 1: is a JSON list, not an object"),
    "a table in JSON": (".json", '{"prompts": ["a"]}', "holds {'prompts': ['a']}. Expected a list"),
    "half a JSON": (".json", '["a",\n "b', "line 2: is no JSON: Unterminated string"),
    "half a line": (".jsonl", '{"prompt": "a"}\n{"prom', "line 2: is not a whole JSON object"),
    "JSON too deep": (".json", "[" * 100_000, "lists in lists too deep"),
    "a number": (".jsonl", '{"prompt": 3}', "line 1: 'prompt' is 3. Expected a text"),
    "a null": (".json", '["a", {"text": null}]', "entry 2: 'text' is None. Expected a text"),
    "a number among texts": (".json", '["a", 3]', "entry 2: is 3. Expected a text, or an object"),
    "a conversation": (".jsonl", '{"prompt": [{"role": "user"}]}', "'prompt' is a conversation"),
    "half a character": (".jsonl", '{"prompt": "good \\ud83c"}', "holds half of a character, '\\ud83c'"),
    "another key": (".jsonl", '{"question": "a", "n": 1}', "line 1: has 'question', 'n'. Expected prompt or text"),
    "other columns": (".csv", "id,question\n1,So\n", "line 1: names the columns 'id', 'question'. Expected one called prompt or text"),
    "a space in the name": (".csv", "id, prompt\n1,So\n", "names the columns 'id', ' prompt'"),
    "semicolons": (".csv", "id;prompt\n1;So\n", "names the columns 'id;prompt'"),
    "commas in a TSV": (".tsv", "id,prompt\n1,So\n", "and tabs between them"),
    "no header": (".csv", "The plot\nSo\n", "names the columns 'The plot'"),
    "a comma too many": (".csv", "id,prompt\n1,I, we watched\n", "line 2: has 3 cells for 2 columns"),
    "a column twice": (".csv", "prompt,prompt\na,b\n", "line 1: names a column twice"),
    "an open quote": (".csv", 'prompt\na\n"b\n', "line 3: is not CSV"),
    "a name of the course": (".jsonl", '{"prompt": "a", "outputs": 1}', "has 'outputs', which is what every reward function is given"),
    "nothing": (".txt", "", "has no prompts"),
    "nothing but spaces": (".csv", "prompt\n \n", "has no prompts"),
    "no entries": (".json", "[]", "has no prompts"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_in_a_sentence(tmp_path, name):
    ending, content, says = REFUSED[name]
    path = written(tmp_path, f"prompts{ending}", content)
    with pytest.raises(CourseError) as error:
        read_prompts(path)
    assert says in str(error.value) and str(path) in str(error.value)


def test_a_real_spreadsheet_by_another_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "book.txt", "w") as book:
        book.writestr("[Content_Types].xml", "<x/>")
    with pytest.raises(CourseError, match="no text but a zip archive"):
        read_prompts(tmp_path / "book.txt")


def test_paths_that_cannot_be_read(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    for name, says in [("none.txt", "No such file"), ("folder.txt", "directory"), ("a\0.txt", "null")]:
        with pytest.raises(CourseError, match=says):
            read_prompts(tmp_path / name)


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    written(tmp_path, "p.txt", "The plot\n")
    assert read_prompts("~/p.txt") == ["The plot"]
    with pytest.raises(CourseError, match="No such file"):
        read_prompts("~nobody-of-this-name/p.txt")


def test_a_split_keeps_what_goes_with_a_prompt(tmp_path):
    lines = [json.dumps({"prompt": f"p{n}", "n": n}) for n in range(20)]
    train, held_out = split_prompts(written(tmp_path, "p.jsonl", "\n".join(lines)))
    assert train == [{"prompt": f"p{n}", "n": n} for n in range(18)]
    assert held_out == [{"prompt": f"p{n}", "n": n} for n in (18, 19)]
