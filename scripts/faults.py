"""Prints the table of a run of scripts/faults.sh, from the lines that its tests left."""

import argparse
import datetime
import json
import os
import platform
import re
import sys

BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"

COLUMNS = [
    ("Fault", lambda line: line["fault"].replace("_", " ")),
    ("Injected", lambda line: f"{line['faults']:,}"),
    ("Acknowledged", lambda line: f"{line['acknowledged']:,}"),
    ("Lost", lambda line: f"{line['lost']:,}"),
    ("Duplicates", lambda line: f"{line['duplicates']:,}"),
    ("Out of order", lambda line: f"{line['out_of_order']:,}"),
    ("Violations", lambda line: f"{len(line['violations']):,}"),
    ("Time", lambda line: f"{line['seconds']:,} s"),
]


ROW = re.compile(r"^\| (?!Fault |---)(.+) \|$", re.MULTILINE)


def rows_of(lines):
    return [[show(line) for _, show in COLUMNS] for line in lines]


def table(rows):
    head = [[name for name, _ in COLUMNS], ["---"] * len(COLUMNS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in head + rows)


def described(values):
    return ", ".join(sorted({str(value) for value in values}))


def totals(rows):
    """Summed up from the table, so that rows of earlier runs count as well."""
    column = [name for name, _ in COLUMNS].index
    numbers = [[int(re.sub(r"[^0-9]", "", cell)) for cell in row[1:]] for row in rows]
    total = {name: sum(row[column(name) - 1] for row in numbers) for name, _ in COLUMNS[1:]}
    clean = sum(row[column("Violations") - 1] == 0 for row in numbers)
    return (
        f"{total['Injected']:,} faults, {total['Acknowledged']:,} messages acknowledged,"
        f" {total['Lost']:,} lost; {clean} of {len(rows)} tests without a violation"
    )


def about(lines, commit):
    now = datetime.datetime.now(datetime.timezone.utc)
    return [
        f"- Date: {now:%Y-%m-%d}",
        f"- Machine: {os.cpu_count()} cores, Linux {platform.release()}",
        f"- Versions: commit {commit}, nats-server {described(line['nats_server'] for line in lines)}",
        f"- Dose: {described(line['dose'] for line in lines)}; seed {described(line['seed'] for line in lines)}",
    ]


def violations(lines):
    violated = [line for line in lines if line["violations"]]
    if not violated:
        return []
    return ["", "Violations:", ""] + [
        f"- {line['fault'].replace('_', ' ')}: {violation}"
        for line in violated
        for violation in line["violations"][:5]
    ]


def result(lines, commit):
    rows = rows_of(lines)
    return "\n".join([*about(lines, commit), "", table(rows), "", totals(rows), *violations(lines)])


def result_beside(earlier, lines, commit):
    """The result of a run of some tests, with the rows of all others as they were."""
    rows = {row[0]: row for row in (match.split(" | ") for match in ROW.findall(earlier))}
    rows |= {row[0]: row for row in rows_of(lines)}
    rows = [rows[name] for name in sorted(rows)]
    names = described(line["fault"].replace("_", " ") for line in lines)
    own = [
        f"- {names}: {', '.join(part.removeprefix('- ') for part in about(lines, commit))}"
    ]
    # What was noted about these very tests before is replaced.
    kept = [
        line
        for line in earlier.partition("\n| ")[0].strip().splitlines()
        if not line.startswith(f"- {names}: ")
    ]
    return "\n".join([*kept, *own, "", table(rows), "", totals(rows), *violations(lines)])


def parts_of(path):
    """What comes before the table, the table, and what comes after it."""
    with open(path, encoding="utf-8") as file:
        before, begin, rest = file.read().partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"{path} does not have the lines {BEGIN} and {END}")
    return before, inside, after


def put_into(path, text):
    before, _, after = parts_of(path)
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    os.replace(path + ".new", path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--write", metavar="FILE")
    parser.add_argument("--beside", action="store_true", help="keep the rows of tests that did not run")
    options = parser.parse_args()
    with open(options.report, encoding="utf-8") as file:
        lines = sorted((json.loads(line) for line in file), key=lambda line: line["fault"])
    if not lines:
        sys.exit("no test has reported anything")
    text = result(lines, options.commit)
    print(text)
    if options.write and options.beside:
        text = result_beside(parts_of(options.write)[1], lines, options.commit)
    if options.write:
        put_into(options.write, text)


if __name__ == "__main__":
    main()
