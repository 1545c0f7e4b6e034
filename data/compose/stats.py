"""Print the tables of data/README.md: counts, splits, lengths and lexical overlap with the relevant passages."""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from check import mentions  # noqa: E402
from text import DATA, TENANTS, read_lines, units  # noqa: E402


def bigrams(text):
    """Character bigrams without white space, lower case."""
    flat = "".join(text.lower().split())
    return {flat[i:i + 2] for i in range(len(flat) - 1)}


def overlap(text, passage):
    """(Jaccard, containment of the text in the passage) over character bigrams."""
    left, right = bigrams(text), bigrams(passage)
    shared = len(left & right)
    return shared / max(1, len(left | right)), shared / max(1, len(left))


def mean(values):
    """The mean, 0 when there is none."""
    return sum(values) / max(1, len(values))


def names_of(passages):
    """Every mention string -> its entity."""
    names = {}
    for row in passages:
        meta = row["metadata"]
        for name in [meta["entity"]] + meta["aliases"] if meta["entity"] else []:
            names[name] = meta["entity"]
    return names


def main():
    """Four tables in Markdown."""
    data = {t: (read_lines(os.path.join(DATA, t, "passages.jsonl")), read_lines(os.path.join(DATA, t, "dialogues.jsonl"))) for t in TENANTS}
    print("| tenant | passages | hand-written | entities | train | val | test | conversations | with history | profile | summary | thought | rewrites a row |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for t, (passages, rows) in data.items():
        part = {s: sum(r["split"] == s for r in rows) for s in ("train", "val", "test")}
        share = lambda key: f"{mean([bool(r[key]) for r in rows]):.0%}"
        entities = {p["metadata"]["entity"] for p in passages} - {""}
        hand = sum(p["metadata"]["entity"] == "" for p in passages)
        print(f"| {t} | {len(passages)} | {hand} | {len(entities)} | {part['train']} | {part['val']} | {part['test']} | "
              f"{len({r['conversation_id'] for r in rows})} | {share('history')} | {share('user_profile')} | {share('history_summary')} | "
              f"{share('thought')} | {mean([len(r['gold_rewrites']) for r in rows]):.1f} |")
    print("\n| tenant | split | rows | query names the entity | about a test-only entity | context units median / p90 / max | query units mean | rewrite units mean / max |")
    print("|---|---|---|---|---|---|---|---|")
    only = {}
    for t, (passages, rows) in data.items():
        names, by_id = names_of(passages), {p["id"]: p for p in passages}
        said = {}
        for r in rows:
            parts = [h["content"] for h in r["history"]] + [r[k] for k in ("query", "user_profile", "history_summary", "thought")]
            r["size"], r["found"] = sum(units(p) for p in parts), mentions("\n".join(parts), names)
            for entity in r["found"]:
                said.setdefault(entity, set()).add(r["split"])
            best = next(x["id"] for x in r["relevant"] if x["grade"] == 2)
            r["best"] = by_id[best]["metadata"]["entity"]
        only[t] = {s: sorted(e for e, splits in said.items() if splits == {s}) for s in ("test", "val")}
        for s in ("train", "val", "test"):
            these = [r for r in rows if r["split"] == s]
            sizes = sorted(r["size"] for r in these)
            golds = [units(g, 1.3) for r in these for g in r["gold_rewrites"]]
            named = mean([bool(r["best"]) and r["best"] in mentions(r["query"], names) for r in these])
            held = mean([r["best"] in only[t]["test"] for r in these])
            print(f"| {t} | {s} | {len(these)} | {named:.0%} | {held:.0%} | {sizes[len(sizes) // 2]:.0f} / {sizes[len(sizes) * 9 // 10]:.0f} / "
                  f"{sizes[-1]:.0f} | {mean([units(r['query']) for r in these]):.1f} | {mean(golds):.1f} / {max(golds):.0f} |")
    print("\n| tenant | raw query: Jaccard / containment | gold rewrite: Jaccard / containment | gold without the entity name: containment |")
    print("|---|---|---|---|")
    for t, (passages, rows) in data.items():
        by_id, names = {p["id"]: p["text"] for p in passages}, names_of(passages)
        raw, gold, bare = [], [], []
        for r in rows:
            if r["split"] != "test":
                continue
            passage = by_id[next(x["id"] for x in r["relevant"] if x["grade"] == 2)]
            raw.append(overlap(r["query"], passage))
            for g in r["gold_rewrites"]:
                gold.append(overlap(g, passage))
                for name in sorted(names, key=len, reverse=True):
                    g = g.replace(name, " ")
                bare.append(overlap(g, passage)[1])
        print(f"| {t} | {mean([a for a, _ in raw]):.3f} / {mean([b for _, b in raw]):.3f} | {mean([a for a, _ in gold]):.3f} / "
              f"{mean([b for _, b in gold]):.3f} | {mean(bare):.3f} |")
    print("\n| tenant | only in test | only in val |\n|---|---|---|")
    for t in data:
        print(f"| {t} | {'、'.join(only[t]['test'])} | {'、'.join(only[t]['val'])} |")


main()
