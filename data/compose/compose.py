"""Rewrite data/<tenant>/* from the tables beside this file. The same tables give the same bytes."""
import importlib
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import dialogues  # noqa: E402
import passages  # noqa: E402
from text import DATA, TENANTS, write_lines  # noqa: E402


def toml_text(vocab):
    """tenant.toml, written by hand because the standard library only reads TOML."""
    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def array(items):
        return "[" + ", ".join(quoted(item) for item in items) + "]"

    t = vocab.TENANT
    lines = [f"id = {quoted(t['id'])}", f"name = {quoted(t['name'])}", f"domain = {quoted(t['domain'])}",
             f"system_prompt = {quoted(t['system_prompt'])}", f"protected_terms = {array(t['protected_terms'])}"]
    for table in ("synonyms", "term_expansion"):
        lines += ["", f"[{table}]"] + [f"{quoted(key)} = {array(words)}" for key, words in t[table].items()]
    return "\n".join(lines) + "\n"


def main():
    """Compose the tenants named on the command line, or all of them."""
    for tenant in sys.argv[1:] or TENANTS:
        vocab = importlib.import_module(f"vocab_{tenant}")
        folder = os.path.join(DATA, tenant)
        os.makedirs(folder, exist_ok=True)
        entities, rows, ids = passages.build(tenant, vocab)
        with open(os.path.join(folder, "tenant.toml"), "w", encoding="utf-8", newline="\n") as out:
            out.write(toml_text(vocab))
        write_lines(os.path.join(folder, "passages.jsonl"), rows)
        write_lines(os.path.join(folder, "dialogues.jsonl"), dialogues.build(tenant, vocab, entities, rows, ids))


main()
