"""Holds exports against the store that they were made from. Run by tools/check-exports."""

import glob
import hashlib
import json
import math
import re
import sqlite3
import sys

import duckdb
import openpyxl
import pandas as pd

STORE, WORK, GUIDE = sys.argv[1:4]


def store_rows():
    """What the store holds, read by hand: the facts that each format is compared with."""
    store = sqlite3.connect(f"file:{STORE}?mode=ro", uri=True)
    rows = {}
    for tenant, key, created, degraded, body in store.execute(
        "SELECT tenant, lower(hex(id)), created_ms, degraded, body FROM episodes"
    ):
        body = json.loads(body)
        rows[tenant, key] = {
            "created_ms": created,
            "degraded": bool(degraded),
            "query": body["conversation"]["query"],
            "rewrite": body["rewrite"]["text"],
            "hits": body["hits"],
            "total_us": body["timings"]["total_us"],
            "top1": body["hits"][0]["score"] if body["hits"] else None,
            "shadow": None,
            "live_overall": None,
            "reward": None,
            "feedback": 0,
        }
    for tenant, key, answer in store.execute(
        "SELECT tenant, lower(hex(episode)), answer FROM shadow_runs WHERE kind = 'treatment'"
    ):
        rows[tenant, key]["shadow"] = json.loads(answer)["rewrite"]["text"] if answer else None
    for tenant, key, scores in store.execute(
        "SELECT tenant, lower(hex(episode)), scores FROM verdicts WHERE side = 'live'"
    ):
        rows[tenant, key]["live_overall"] = json.loads(scores)["overall"]
    for tenant, key, parts in store.execute("SELECT tenant, lower(hex(episode)), parts FROM rewards"):
        rows[tenant, key]["reward"] = json.loads(parts)["reward"]["total"]
    for tenant, key in store.execute("SELECT tenant, lower(hex(episode)) FROM feedback"):
        rows[tenant, key]["feedback"] += 1
    return rows


def safe(text):
    """The rule of docs/EPISODES.md for cells of CSV."""
    head = text.lstrip()[:1]
    return "'" + text if text[:1] in ("\t", "\r") or (head and head in "=+-@＝＋－＠") else text


def check(name, frame, rows, cell=lambda text: text):
    """`frame` has the columns as the reader at hand made them."""
    frame = frame.astype(object).where(frame.notna(), None)
    assert len(frame) == len(rows), f"{name}: {len(frame)} rows of {len(rows)}"
    seen = set()
    for row in frame.to_dict("records"):
        key = row["tenant_id"], str(row["episode_id"]).replace("-", "")
        assert key not in seen, f"{name}: {key} is there twice"
        seen.add(key)
        want = rows[key]
        texts = {"query": want["query"], "rewrite": want["rewrite"], "shadow_rewrite": want["shadow"]}
        for column, text in texts.items():
            found = row[column]
            assert found == (None if text is None else cell(text)), f"{name}: {column} of {key}: {found!r}, not {text!r}"
        hits = row["hits"] if not isinstance(row["hits"], str) else json.loads(row["hits"])
        assert [hit["content"] for hit in hits] == [hit["content"] for hit in want["hits"]], f"{name}: hits of {key}"
        assert bool(row["is_degraded"]) == want["degraded"], f"{name}: is_degraded of {key}"
        time = pd.Timestamp(row["created_at"])
        time = time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
        assert round(time.timestamp() * 1000) == want["created_ms"], f"{name}: created_at of {key}: {time}"
        numbers = {
            "total_us": want["total_us"],
            "n_hits": len(want["hits"]),
            "top1_score": want["top1"],
            "live_overall": want["live_overall"],
            "reward_total": want["reward"],
            "n_feedback": want["feedback"],
        }
        for column, number in numbers.items():
            # the store's JSON is read to the last bit or the one beside it
            same = row[column] is None if number is None else math.isclose(row[column], number, rel_tol=1e-15, abs_tol=1e-15)
            assert same, f"{name}: {column} of {key}: {row[column]!r}, not {number!r}"
    sums = {
        "total_us": sum(row["total_us"] for row in rows.values()),
        "n_hits": sum(len(row["hits"]) for row in rows.values()),
        "n_feedback": sum(row["feedback"] for row in rows.values()),
    }
    for column, total in sums.items():
        assert int(frame[column].sum()) == total, f"{name}: the sum of {column}"
    print(f"{name}: {len(frame)} rows, sums and texts are the store's")


def manifest(folder, rows):
    """The manifest's counts and hashes are those of the files."""
    with open(f"{folder}/manifest.json", encoding="utf-8") as file:
        said = json.load(file)
    assert said["rows"] == len(rows) == sum(file["rows"] for file in said["files"])
    for entry in said["files"]:
        with open(f"{folder}/{entry['path']}", "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == entry["sha256"], entry["path"]


def workbook(path):
    """A workbook's sheet as openpyxl reads it; no cell may be a formula."""
    sheet = openpyxl.load_workbook(path, read_only=True)["episodes"]
    lines = sheet.iter_rows()
    head = [cell.value for cell in next(lines)]
    rows = []
    for line in lines:
        assert all(cell.data_type != "f" for cell in line), f"{path}: a formula"
        rows.append(dict(zip(head, [cell.value for cell in line] + [None] * len(head))))
    return pd.DataFrame(rows, columns=head)


def snippets():
    """Runs the snippets of the guide, each on the export that it is about."""
    with open(GUIDE, encoding="utf-8") as file:
        found = re.findall(r"```python (\w+)\n(.*?)```", file.read(), re.S)
    assert [name for name, _ in found] == ["duckdb", "pandas", "csv"], "the guide's snippets have other names"
    for name, code in found:
        scope = {"folder": f"{WORK}/{'csv' if name == 'csv' else 'parquet'}"}
        exec(code, scope)
        assert len(scope["rows"]) > 0, f"the snippet {name} finds nothing"
        print(f"the snippet {name} runs: {len(scope['rows'])} rows")
    forgetting()


def forgetting():
    """Runs the guide's statement that takes erased episodes out of an export that somebody keeps."""
    with open(GUIDE, encoding="utf-8") as file:
        (statement,) = re.findall(r"```sql\n(.*?)```", file.read(), re.S)
    for name, path in (("export/", f"{WORK}/parquet/"), ("erased.jsonl", f"{WORK}/erased.jsonl"),
                       ("clean.parquet", f"{WORK}/clean.parquet")):
        assert name in statement, f"the guide's statement does not name {name}"
        statement = statement.replace(name, path)
    ids = duckdb.sql(f"SELECT episode_id FROM read_parquet('{WORK}/parquet/**/*.parquet')").df()["episode_id"].tolist()
    gone = ids[::7]
    with open(f"{WORK}/erased.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"episode_id": one, "erased_ms": 0}) + "\n" for one in gone)
    duckdb.sql(statement)
    left = set(pd.read_parquet(f"{WORK}/clean.parquet")["episode_id"])
    assert left == set(ids) - set(gone), "the guide's statement keeps other rows than it should"
    print(f"the statement about erased episodes leaves {len(left)} of {len(ids)} rows")


def main():
    rows = store_rows()
    assert any("\n" in row["query"] for row in rows.values()) and any(row["shadow"] for row in rows.values())
    for name in ("parquet", "jsonl", "csv", "xlsx"):
        manifest(f"{WORK}/{name}", rows)
    duckdb.sql("SET TimeZone = 'UTC'")

    parquet = f"read_parquet('{WORK}/parquet/**/*.parquet', hive_partitioning = false)"
    check("duckdb, parquet", duckdb.sql(f"SELECT * FROM {parquet}").df(), rows)
    types = dict(duckdb.sql(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {parquet})").fetchall())
    wanted = {"created_at": "TIMESTAMP WITH TIME ZONE", "total_us": "BIGINT", "top1_score": "DOUBLE",
              "is_degraded": "BOOLEAN", "query": "VARCHAR", "hits": "VARCHAR"}
    assert {name: types[name] for name in wanted} == wanted, types
    check("pandas, parquet", pd.read_parquet(sorted(glob.glob(f"{WORK}/parquet/tenant=*/date=*/*.parquet"))), rows)

    lines = sorted(glob.glob(f"{WORK}/jsonl/tenant=*/*.jsonl"))
    check("duckdb, jsonl", duckdb.sql(f"SELECT * FROM read_json({lines!r}, sample_size = -1)").df(), rows)
    frames = []
    for path in lines:
        with open(path, encoding="utf-8") as file:
            frames += [json.loads(line) for line in file.read().splitlines() if line]
    check("json, jsonl", pd.DataFrame(frames), rows)

    tables = sorted(glob.glob(f"{WORK}/csv/tenant=*/*.csv"))
    with open(tables[0], "rb") as file:
        assert file.read(3) == b"\xef\xbb\xbf", "CSV without its byte order mark"
    check("duckdb, csv", duckdb.sql(f"SELECT * FROM read_csv({tables!r}, sample_size = -1)").df(), rows, safe)
    read = [pd.read_csv(path, encoding="utf-8-sig", keep_default_na=False, na_values=[""], low_memory=False) for path in tables]
    check("pandas, csv", pd.concat(read, ignore_index=True), rows, safe)

    books = [workbook(path) for path in sorted(glob.glob(f"{WORK}/xlsx/tenant=*/*.xlsx"))]
    check("openpyxl, xlsx", pd.concat(books, ignore_index=True), rows)
    snippets()


main()
