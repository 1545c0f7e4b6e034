"""Compose the dialogues of one tenant from its question tables, then add the hand-written ones."""
import random
import re

from text import expand, glue, say, units

COUNTS = {"test": 220, "val": 130, "train": 3300}
KINDS = [("ellipsis", 35), ("switch", 12), ("reference", 12), ("distractor", 10),
         ("profile", 8), ("summary", 8), ("standalone", 10), ("slang", 5)]
MAX_UNITS, USUAL_UNITS, MAX_GOLD, MAX_THOUGHT = 140, 98, 22, 20


def same_meaning(group, one, other, split):
    """Whether a question of the group asks the same of both entities (an allergy, say, must carry over)."""
    texts = group.words + group.short + group.sentences
    texts += [q for q, only in group.questions if only != "train" or split == "train"]
    slots = {slot for text in texts for slot in re.findall(r"{(\w+)}", text)} - {"E", "v", "u"}
    return all(one.facts[slot] == other.facts[slot] for slot in slots)


class Composer:
    """Draws conversations for one split of one tenant."""

    def __init__(self, tenant, vocab, entities, ids, texts, split):
        self.v, self.ids, self.texts, self.split = vocab, ids, texts, split
        self.rng = random.Random(f"{tenant}/dialogues/{split}/7")
        self.common = [e for e in entities if e.hold == ""]
        self.own = [e for e in entities if e.hold == split]
        self.seen = set()

    # -- draws ---------------------------------------------------------------------------------
    def entity(self):
        share = {"test": 0.58, "val": 0.35, "train": 0.0}[self.split]
        return self.rng.choice(self.own if self.own and self.rng.random() < share else self.common)

    def other(self, entity):
        """Another entity of the same kind, mostly of the same family."""
        pool = [e for e in self.common + self.own if e.kind == entity.kind and e is not entity]
        family = [e for e in pool if e.family == entity.family]
        return self.rng.choice(family if family and self.rng.random() < 0.65 else pool)

    def mention(self, entity):
        if entity.aliases and self.rng.random() < 0.25:
            return self.rng.choice(entity.aliases)
        return entity.name

    def question(self, entity, but=(), keys=None):
        """An (aspect, group, bare question); in test and val half of them from the reserved phrasings."""
        aspects = [a for a in self.v.ASPECTS[entity.kind] if a.key not in but and (not keys or a.key in keys)]
        aspect = self.rng.choice(aspects)
        pairs = [(g, q) for g in aspect.groups for q in g.open_to(self.split)]
        if self.split != "train" and self.rng.random() < 0.5:
            pairs = [(g, q) for g in aspect.groups for q, only in g.questions if only == self.split]
        group, q = self.rng.choice(pairs)
        return aspect, group, say(q, entity.facts, self.rng)

    def dressed(self, q):
        """The bare question as typed in a chat."""
        lead = self.rng.choices(["", "那", "请问", "对了，", "还有，", "嗯"], [60, 16, 6, 7, 7, 4])[0]
        tail = self.rng.choices(["", "？", "呀"], [82, 15, 3])[0]
        if q.startswith("那"):
            lead = ""
        return glue(lead, q) + ("" if tail == "呀" and q[-1] in "吗呢啊吧么" else tail)

    def answer(self, aspect, group, entity):
        return say(self.rng.choice(group.answers or aspect.answers), entity.facts, self.rng)

    # -- what a careful writer makes of it --------------------------------------------------------
    def golds(self, entity, name, group, q):
        facts = dict(entity.facts, E=name)

        def pick(options):
            return say(self.rng.choice(options), facts, self.rng)

        others = [o for o in group.open_to(self.split)] or [q]
        made = [f"{name} {pick(group.words)}", f"{pick(group.words)} {name}", f"{name} {pick(group.short)}",
                glue(name, q), glue(name, say(self.rng.choice(others), facts, self.rng)),
                glue(name, pick(group.short))]
        if group.sentences:
            made += [pick(group.sentences), pick(group.sentences)]
        made = [m for m in made if units(m, 1.3) <= MAX_GOLD]
        self.rng.shuffle(made)
        unique = list(dict.fromkeys(made))
        bare = {m.replace(" ", ""): m for m in reversed(unique)}
        unique = [m for m in unique if bare[m.replace(" ", "")] is m]
        return unique[: self.rng.choice([3, 4, 4, 5])]

    def relevant(self, entity, aspect, group):
        found = [{"id": self.ids[(entity.name, aspect.key)], "grade": 2}]
        for also in group.also:
            key, _, word = also.strip().partition(":")
            if key.startswith("#"):
                found.append({"id": self.ids[key[1:]], "grade": 1})
            elif expand(word, self.rng).format_map(entity.facts) in self.texts[self.ids[(entity.name, key)]]:
                found.append({"id": self.ids[(entity.name, key)], "grade": 1})
        return found

    # -- conversations ---------------------------------------------------------------------------
    def opening(self, entity, name, but):
        """One or two exchanges that name the entity once."""
        if self.rng.random() < 0.5:
            turns = [expand(self.rng.choice(self.v.OPENERS), self.rng).format(E=name),
                     expand(self.rng.choice(self.v.REPLIES), self.rng)]
            used = []
        else:
            aspect, group, q = self.question(entity, but)
            turns, used = [glue(name, q), self.answer(aspect, group, entity)], [aspect.key]
        if self.rng.random() < 0.28:
            aspect, group, q = self.question(entity, list(but) + used)
            turns += [self.dressed(q), self.answer(aspect, group, entity)]
        return turns

    def row(self, entity, name, aspect, group, q, turns, query, profile="", summary=""):
        return {"turns": turns, "query": query, "profile": profile, "summary": summary,
                "golds": self.golds(entity, name, group, q), "entity": entity, "name": name,
                "relevant": self.relevant(entity, aspect, group), "aspect": aspect, "group": group}

    def conversation(self, kind):
        rng, v = self.rng, self.v
        entity = self.entity()
        name = self.mention(entity)
        aspect, group, q = self.question(entity)
        make = lambda turns, query, **more: self.row(entity, name, aspect, group, q, turns, query, **more)
        if kind == "standalone":
            return make([], glue(name, q))
        if kind == "slang":
            if rng.random() < 0.5 and entity.codes:
                aspect, group, q = self.question(entity, keys=v.CODE_ASPECTS)
                name = rng.choice(entity.codes)
                return self.row(entity, name, aspect, group, q, [], glue(name, q))
            said = q
            for formal, slang in v.SLANG:
                if formal in said and rng.random() < 0.8:
                    said = said.replace(formal, rng.choice(slang), 1)
            return make(self.opening(entity, name, [aspect.key]), said) if said != q else None
        if kind == "summary":
            summary = expand(rng.choice(v.SUMMARIES), rng).format(E=name)
            turns = []
            if rng.random() < 0.6:
                before, about, asked = self.question(entity, [aspect.key])
                turns = [self.dressed(asked), self.answer(before, about, entity)]
            return make(turns, self.dressed(q), summary=summary)
        if kind == "profile":
            options = [p for p in v.PROFILES if p.kind == entity.kind]
            p = rng.choice(options)
            aspect = next(a for a in v.ASPECTS[entity.kind] if a.key == p.aspect)
            q = say(rng.choice(p.group.open_to(self.split)), entity.facts, rng)
            row = self.row(entity, name, aspect, p.group, say(p.group.short[0], entity.facts, rng),
                           self.opening(entity, name, [aspect.key])[:2], self.dressed(q),
                           profile=say(p.text, entity.facts, rng))
            # The bare question ("我能喝吗") is no rewrite: only the constraint's own words are.
            facts = dict(entity.facts, E=name)
            made = [f"{name} {say(w, facts, rng)}" for w in p.group.words]
            made += [f"{say(w, facts, rng)} {name}" for w in p.group.words]
            made += [say(s, facts, rng) for s in p.group.sentences] + [f"{name} {say(s, facts, rng)}" for s in p.group.short]
            rng.shuffle(made)
            row["golds"] = [m for m in dict.fromkeys(made) if units(m, 1.3) <= MAX_GOLD][: rng.choice([3, 4, 5])]
            return row
        if kind == "ellipsis":
            return make(self.opening(entity, name, [aspect.key]), self.dressed(q))
        second = self.other(entity)
        other = self.mention(second)
        if kind == "switch":
            if not same_meaning(group, entity, second, self.split):
                return None
            template = rng.choice(group.open_to(self.split))
            q = say(template, entity.facts, rng)
            turns = [glue(other, say(template, second.facts, rng)), self.answer(aspect, group, second)]
            return make(turns, rng.choice(self.frames(v.SWITCH)).format(E=name))
        if kind == "reference":
            first = rng.random() < 0.5
            pair = dict(A=name, B=other) if first else dict(A=other, B=name)
            turns = [rng.choice(v.PAIRS).format(**pair), expand(rng.choice(v.PAIR_REPLIES), rng)]
            if rng.random() < 0.3:
                turns[0], turns[1] = rng.choice(v.OPENERS).format(E=pair["A"]), rng.choice(v.OFFERS).format(B=pair["B"])
            ref = rng.choice(self.frames(v.FIRST if first else v.SECOND))
            return make(turns, glue(ref, q))
        if rng.random() < 0.6:
            turns = [rng.choice(v.OPENERS).format(E=name), expand(rng.choice(v.ASIDES), rng).format(B=other)]
            return make(turns, self.dressed(q))
        turns = [rng.choice(v.OPENERS).format(E=name), rng.choice(v.OFFERS).format(B=other)]
        return make(turns, rng.choice(self.frames(v.STAY)) + q)

    def frames(self, pairs):
        """Frames follow the same rule as phrasings: some are reserved for test or val."""
        own = [f for f, only in pairs if only == self.split]
        if own and self.split != "train" and self.rng.random() < 0.4:
            return own
        return [f for f, only in pairs if only == "" or (only == self.split == "train")]

    def follow_up(self, row):
        """The next question of the same conversation, about the same entity."""
        entity, name = row["entity"], row["name"]
        turns = row["turns"] + [row["query"], self.answer(row["aspect"], row["group"], entity)]
        aspect, group, q = self.question(entity, [row["aspect"].key])
        return self.row(entity, name, aspect, group, q, turns, self.dressed(q), row["profile"], row["summary"])

    def context(self, row):
        """Profile, summary and thought that change nothing, at the rates of a real log."""
        rng, v = self.rng, self.v
        row.setdefault("thought", "")
        if not row["profile"] and rng.random() < 0.25:
            row["profile"] = expand(rng.choice(v.NEUTRAL), rng)
        if not row["summary"] and row["turns"] and rng.random() < 0.18:
            row["summary"] = expand(rng.choice(v.RECAPS), rng)
        if rng.random() < 0.30:
            short = say(row["group"].short[0], row["entity"].facts, rng)
            thought = expand(rng.choice(v.THOUGHTS), rng).format(s=short)
            row["thought"] = thought if len(thought) <= MAX_THOUGHT else ""
        return row

    def size(self, row):
        return sum(units(t) for t in row["turns"] + [row["query"], row["profile"], row["summary"], row["thought"]])

    def fine(self, row):
        """A row to keep: enough rewrites, not seen before, short enough for a small model."""
        if row is None or len(row["golds"]) < 3 or len(row["turns"]) > 6:
            return False
        limit = MAX_UNITS if self.rng.random() < 0.05 else USUAL_UNITS
        mark = (tuple(row["turns"]), row["query"], row["profile"], row["summary"])
        if self.size(row) > limit or mark in self.seen:
            return False
        self.seen.add(mark)
        return True

    def all(self, want):
        """Conversations until `want` rows are made; the shares of the kinds are exact, not drawn."""
        out, made = [], {kind: 0 for kind, _ in KINDS}
        total = 0
        while total < want:
            kind = max(KINDS, key=lambda k: k[1] * (total + 1) / 100 - made[k[0]])[0]
            row = self.conversation(kind)
            if row is None or not self.fine(self.context(row)):
                continue
            rows = [row]
            made[kind] += 1
            total += 1
            if kind not in ("profile", "slang") and total < want and self.rng.random() < 0.16:
                nxt = self.context(self.follow_up(row))
                if self.fine(nxt):
                    rows.append(nxt)
                    made["ellipsis"] += 1
                    total += 1
                    if total < want and self.rng.random() < 0.3:
                        last = self.context(self.follow_up(nxt))
                        if self.fine(last):
                            rows.append(last)
                            made["ellipsis"] += 1
                            total += 1
            out.append(rows)
        return out


def finish(row_id, conversation, split, row):
    """The row in the layout of the files."""
    roles = ["user", "assistant"]
    return {"id": row_id, "conversation_id": conversation, "split": split,
            "history": [{"role": roles[i % 2], "content": t} for i, t in enumerate(row["turns"])],
            "query": row["query"], "user_profile": row["profile"], "history_summary": row["summary"],
            "thought": row["thought"], "gold_rewrites": row["golds"], "relevant": row["relevant"],
            "query_type": row["type"]}


def build(tenant, vocab, entities, passages, ids):
    """All dialogue rows of a tenant: hand-written ones first in each split, then composed ones."""
    texts = {row["id"]: row["text"] for row in passages}
    out, prefix = [], vocab.PREFIX
    types = {(e.name, a.key): a.query_type for e in entities for a in vocab.ASPECTS[e.kind]}
    for split in ("train", "val", "test"):
        talks = []
        for hand in vocab.hand.DIALOGUES:
            if hand["split"] == split:
                marks = hand["relevant"]
                first = marks[0][0]
                talks.append([{
                    "turns": hand.get("turns", []), "query": hand["query"], "profile": hand.get("profile", ""),
                    "summary": hand.get("summary", ""), "thought": hand.get("thought", ""), "golds": hand["golds"],
                    "relevant": [{"id": ids[key], "grade": grade} for key, grade in marks],
                    "type": types.get(first, hand.get("type", "general"))}])
        composer = Composer(tenant, vocab, entities, ids, texts, split)
        composed = composer.all(COUNTS[split] - len(talks))
        for rows in composed:
            for row in rows:
                row["type"] = row["aspect"].query_type
        for talk, rows in enumerate(talks + composed):
            conversation = f"{prefix}-{split}-c{talk + 1:04d}"
            for turn, row in enumerate(rows):
                out.append(finish(f"{conversation}-{turn + 1}", conversation, split, row))
    return out
