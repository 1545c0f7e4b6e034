"""Compose the passages of one tenant: every entity by every aspect, then the hand-written ones."""
import random
from text import say


class Entity:
    """A product, course, fund or rule with its names, its facts and the splits that may speak of it."""

    def __init__(self, name, aliases, codes, family, kind, hold):
        self.name, self.aliases, self.codes = name, aliases, codes
        self.family, self.kind, self.hold = family, kind, hold
        self.facts = {}

    def strings(self):
        """Every string under which texts may mention the entity."""
        return [self.name] + self.aliases + self.codes


def parse_member(text):
    """`name*=alias,alias`: * is for the test split only, ^ for the validation split only."""
    name, _, aliases = text.strip().partition("=")
    hold = {"*": "test", "^": "val"}.get(name[-1], "")
    return name.rstrip("*^"), [a for a in aliases.split(",") if a], hold


def build(tenant, vocab):
    """Returns the entities, the passage rows and the map from (name, aspect) or key to passage id."""
    entities = vocab.entities()
    prefix, rows, index = vocab.PREFIX, [], {}
    for number, entity in enumerate(entities):
        doc = f"{prefix}-doc-{number + 1:03d}"
        for aspect in vocab.ASPECTS[entity.kind]:
            rng = random.Random(f"{tenant}/passage/{entity.name}/{aspect.key}")
            shown = entity.name
            if entity.aliases and rng.random() < 0.25:
                shown = rng.choice(entity.aliases)
            facts = dict(entity.facts, n=shown)
            text = say(rng.choice(aspect.templates), facts, rng)
            index[(entity.name, aspect.key)] = len(rows)
            rows.append({
                "id": f"{prefix}-{len(rows) + 1:04d}", "doc_id": doc,
                "title": vocab.TITLE[entity.kind].format(n=entity.name), "text": text,
                "source": aspect.source,
                "metadata": {"entity": entity.name, "aliases": entity.aliases + entity.codes,
                             "aspect": aspect.formal, "category": entity.facts["category"]},
            })
    for key, title, category, text in vocab.hand.PASSAGES:
        index[key] = len(rows)
        rows.append({
            "id": f"{prefix}-{len(rows) + 1:04d}", "doc_id": f"{prefix}-doc-{category}",
            "title": title, "text": text, "source": "hand-written",
            "metadata": {"entity": "", "aliases": [], "aspect": title, "category": category},
        })
    return entities, rows, {key: rows[at]["id"] for key, at in index.items()}
