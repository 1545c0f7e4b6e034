"""The asker's side: aspects, the groups of questions that mean the same, and the parser of their tables."""


class Group:
    """Questions that one passage answers alike, with the words that writers of rewrites would use."""

    def __init__(self, line):
        parts = [part.strip() for part in line.split("/")]
        self.words = [w.strip() for w in parts[0].split(";")]
        self.short = [w.strip() for w in parts[1].split(";")]
        self.sentences = [w.strip() for w in parts[2].split(";") if w.strip()] if len(parts) > 2 else []
        self.also = [a for a in parts[3].split(",") if a] if len(parts) > 3 else []
        self.questions, self.answers = [], []

    def open_to(self, split):
        """The questions which a split may use; `t` and `v` ones stay in their split."""
        return [q for q, only in self.questions if only in ("", split)]


class Aspect:
    """One kind of fact: formal passage templates on one side, colloquial questions on the other."""

    def __init__(self, key, formal, label, source, query_type, templates):
        self.key, self.formal, self.label = key, formal, label
        self.source, self.query_type, self.templates = source, query_type, templates
        self.groups, self.answers = [], []


class Profile:
    """A constraint that only the user profile states, with the words that resolve it."""

    def __init__(self, kind, aspect, text, group_line, questions):
        self.kind, self.aspect, self.text, self.group = kind, aspect, text, Group(group_line)
        self.group.questions = questions


def attach(aspects, table, split=""):
    """Reads a question table: `@key`, `a answer`, `g words / short / sentences / also`, then its `a answer` and questions.

    A question `q => words; words` is a group of its own, with only those words for its rewrites. With `split`, no other
    split uses the table's questions."""
    by_key = {aspect.key: aspect for aspect in aspects}
    aspect = group = None
    for line in table.strip().splitlines():
        line = line.strip()
        if not line:
            continue
        if line.startswith("@"):
            aspect, group = by_key[line[1:]], None
        elif line.startswith("a "):
            (group or aspect).answers.append(line[2:])
        elif line.startswith("g "):
            group = Group(line[2:])
            aspect.groups.append(group)
        else:
            held = {"t ": "test", "v ": "val"}.get(line[:2], "")
            question, _, own = (line[2:] if held else line).partition(" => ")
            only = held or split
            if own:  # narrower than its group: no other wording of the group may stand for it
                special = Group(f"{own} / {own}")
                special.also, special.answers = group.also, group.answers
                special.questions.append((question, only))
                aspect.groups.append(special)
            else:
                group.questions.append((question, only))
    for each in aspects:
        marks = [only for group in each.groups for _, only in group.questions]
        counts = (len(marks), marks.count("test"), marks.count("val"))
        if counts[0] < 14 or counts[1] < 4 or counts[2] < 2 or len(each.answers) < 2:
            raise SystemExit(f"aspect {each.key}: {counts} phrasings/test/val, {len(each.answers)} answers: add some")


def widen(frames, profiles, kind, more):
    """Adds the frames and the questions about a profile of a `more_*` table, for training alone."""
    for name, others in getattr(more, "FRAMES", {}).items():
        frames[name] = frames[name] + [(frame, "train") for frame in others]
    for profile in profiles:
        if profile.kind == kind:
            own = more.PROFILE_QUESTIONS.get(profile.aspect, [])
            profile.group.questions = profile.group.questions + [(question, "train") for question in own]
