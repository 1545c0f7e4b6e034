"""Validate every line of data/<tenant>/*; prints `file:line: problem` and exits 1 when there is one."""
import difflib
import json
import os
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from text import DATA, TENANTS, units  # noqa: E402

PASSAGE = {"id", "doc_id", "title", "text", "source", "metadata"}
DIALOGUE = {"id", "conversation_id", "split", "history", "query", "user_profile", "history_summary", "thought",
            "gold_rewrites", "relevant", "query_type"}
TYPES = ("general", "technical", "compliance")
PLAN = {"train": 3300, "val": 130, "test": 220}
# How like two phrasings may be, as difflib counts.
ALIKE = 0.85
problems = []


def load(path):
    """(place, row) of every line that is an object; the others are problems."""
    rows = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{os.path.relpath(path)}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                problems.append(f"{place}: not JSON: {error}")
                continue
            rows.append((place, row))
    return rows


def expect(fact, place, message):
    """Notes the problem when the fact does not hold."""
    if not fact:
        problems.append(f"{place}: {message}")


def mentions(text, names):
    """Entities mentioned in a text, the longest name first, so that a name inside a longer one does not count."""
    found = set()
    for name in sorted(names, key=len, reverse=True):
        if name in text:
            found.add(names[name])
            text = text.replace(name, "\n")
    return found


def check_passages(tenant):
    """Returns the passage ids and the names of entities."""
    ids, texts, names = {}, set(), {}
    for place, row in load(os.path.join(DATA, tenant, "passages.jsonl")):
        expect(set(row) == PASSAGE, place, f"keys are {sorted(row)}")
        expect(row["id"] not in ids, place, f"id {row['id']} is used twice")
        expect(row["text"] not in texts, place, "text is used twice")
        size = units(row["text"], 1.3)
        expect(45 <= size <= 160, place, f"text has {size:.0f} units, wanted 45 to 160")
        entity = row["metadata"]["entity"]
        for name in [entity] + row["metadata"]["aliases"] if entity else []:
            expect(names.setdefault(name, entity) == entity, place, f"{name} names {names[name]} and {entity}")
        expect(not entity or any(n in row["text"] for n in [entity] + row["metadata"]["aliases"]), place, "does not name its entity")
        ids[row["id"]] = row
        texts.add(row["text"])
    expect(len(ids) >= 640, tenant, f"{len(ids)} passages, wanted 640 or more")
    expect(len(set(names.values())) == 72, tenant, f"{len(set(names.values()))} entities, wanted 72")
    return ids, names


def check_dialogues(tenant, ids, names):
    """Every row by itself, then what must hold between splits."""
    seen, split_of, said, counts, long_rows, rows = set(), {}, {}, {}, 0, 0
    for place, row in load(os.path.join(DATA, tenant, "dialogues.jsonl")):
        rows += 1
        expect(set(row) == DIALOGUE, place, f"keys are {sorted(row)}")
        expect(row["id"] not in seen, place, f"id {row['id']} is used twice")
        seen.add(row["id"])
        talk, split = row["conversation_id"], row["split"]
        expect(split in PLAN, place, f"split is {split}")
        expect(split_of.setdefault(talk, split) == split, place, f"conversation {talk} is in two splits")
        counts[split] = counts.get(split, 0) + 1
        expect(row["query_type"] in TYPES, place, f"query_type is {row['query_type']}")
        grades = [r["grade"] for r in row["relevant"]]
        expect(grades.count(2) == 1 and set(grades) <= {1, 2}, place, f"grades are {grades}")
        expect(len({r["id"] for r in row["relevant"]}) == len(grades), place, "a passage is relevant twice")
        for relevant in row["relevant"]:
            expect(relevant["id"] in ids, place, f"relevant passage {relevant['id']} is unknown")
        roles = [turn["role"] for turn in row["history"]]
        expect(roles == ["user", "assistant"] * (len(roles) // 2) and len(roles) <= 6, place, f"roles are {roles}")
        expect(all(turn["content"].strip() for turn in row["history"]) and row["query"].strip(), place, "an empty turn")
        parts = [t["content"] for t in row["history"]] + [row[k] for k in ("query", "user_profile", "history_summary", "thought")]
        size = sum(units(part) for part in parts)
        expect(size <= 140, place, f"context has {size:.0f} units, at most 140")
        long_rows += size > 100
        expect(len(row["thought"]) <= 20, place, "thought is longer than 20 characters")
        golds = row["gold_rewrites"]
        expect(3 <= len(golds) <= 5 and len(set(golds)) == len(golds), place, f"{len(golds)} gold rewrites")
        for gold in golds:
            expect(units(gold, 1.3) <= 22, place, f"gold rewrite has {units(gold, 1.3):.0f} units: {gold}")
            left = [slot for slot in "{}[]|" if slot in gold + "".join(parts)]
            expect(not left, place, f"unfilled template: {gold}")
        best = next((ids[r["id"]]["metadata"]["entity"] for r in row["relevant"] if r["grade"] == 2 and r["id"] in ids), "")
        context = mentions("\n".join(parts), names)
        if best:
            expect(best in context, place, f"{best} is not mentioned in the conversation")
            for gold in golds:
                expect(best in mentions(gold, names), place, f"gold rewrite does not name {best}: {gold}")
        for entity in context:
            said.setdefault(entity, {}).setdefault(split, place)
    expect(counts == PLAN, tenant, f"rows a split are {counts}, wanted {PLAN}")
    expect(long_rows <= rows * 0.10, tenant, f"{long_rows} rows above 100 units, at most 10 %")
    only_test = {e for e, splits in said.items() if set(splits) == {"test"}}
    expect(len(only_test) >= 20, tenant, f"{len(only_test)} entities only in test, wanted 20 or more")
    only_val = {e for e, splits in said.items() if set(splits) == {"val"}}
    expect(len(only_val) >= 5, tenant, f"{len(only_val)} entities only in val, wanted 5 or more")
    return said


def check_holds(tenant, said):
    """The entities which the vocabulary marks as held out must be mentioned in no other split."""
    vocab = __import__(f"vocab_{tenant}")
    for entity in vocab.entities():
        for split, place in said.get(entity.name, {}).items():
            expect(entity.hold in ("", split), place, f"{entity.name} is for {entity.hold} only")


def bare(question):
    """A phrasing without particles and marks."""
    return re.sub(r"[吗呢啊吧呀么嘛，。？?！ 、,]", "", question)


def check_phrasings(tenant):
    """No phrasing that training alone uses is like one that training may not use."""
    vocab = __import__(f"vocab_{tenant}")
    for aspects in vocab.ASPECTS.values():
        asked = [question for aspect in aspects for group in aspect.groups for question in group.questions]
        held = [bare(question) for question, only in asked if only in ("test", "val")]
        for question, only in asked:
            if only == "train":
                matcher = difflib.SequenceMatcher(b=bare(question))
                for other in held:
                    matcher.set_seq1(other)
                    alike = matcher.quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE
                    expect(not alike, tenant, f"{question} is for training alone and like {other}, which is held out")


def main():
    """Check the tenants named, or all."""
    for tenant in sys.argv[1:] or TENANTS:
        ids, names = check_passages(tenant)
        said = check_dialogues(tenant, ids, names)
        check_holds(tenant, said)
        check_phrasings(tenant)
    print("\n".join(problems) if problems else "every line is valid")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
