"""Small text tools shared by the composer, the checker and the statistics."""
import json
import os
import re

DATA = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TENANTS = ["fivedoctors", "chengla", "superstream"]
CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
HAN = re.compile(r"[\u3400-\u9fff]")


def expand(template, rng):
    """Resolve every [a|b|c] to one of its choices, innermost first."""
    while True:
        match = CHOICE.search(template)
        if not match:
            return template
        pick = rng.choice(match.group(1).split("|"))
        template = template[: match.start()] + pick + template[match.end():]


def say(template, facts, rng):
    """Choices first, then the {slots} from the facts."""
    return expand(template, rng).format_map(facts)


def units(text, word=1.5):
    """Length in Han-character equivalents: Han, digit and punctuation 1, a Latin word `word`."""
    words = len(re.findall(r"[A-Za-z]+", text))
    rest = len(re.findall(r"[^A-Za-z\s]", text))
    return words * word + rest


def han(text):
    """How many Han characters."""
    return len(HAN.findall(text))


def glue(left, right):
    """Join two pieces, with a space where Latin or digits would touch Latin."""
    ascii_left = left[-1:].isascii() and left[-1:].isalnum()
    ascii_right = right[:1].isascii() and right[:1].isalnum()
    return left + (" " if ascii_left and ascii_right else "") + right


def write_lines(path, rows):
    """JSON lines with a stable form, so that a second run writes the same bytes."""
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def read_lines(path):
    """All rows of a JSON lines file."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
