"""Prints the table of a run of scripts/faults.sh, from the lines that its tests left."""

import argparse
import datetime
import json
import os
import platform
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


def table(lines):
    rows = [[name for name, _ in COLUMNS], ["---"] * len(COLUMNS)]
    rows += [[show(line) for _, show in COLUMNS] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def described(values):
    return ", ".join(sorted({str(value) for value in values}))


def result(lines, commit):
    now = datetime.datetime.now(datetime.timezone.utc)
    violated = [line for line in lines if line["violations"]]
    parts = [
        f"- Date: {now:%Y-%m-%d}",
        f"- Machine: {os.cpu_count()} cores, Linux {platform.release()}",
        f"- Versions: commit {commit}, nats-server {described(line['nats_server'] for line in lines)}",
        f"- Dose: {described(line['dose'] for line in lines)}; seed {described(line['seed'] for line in lines)}",
        "",
        table(lines),
        "",
        f"{sum(line['faults'] for line in lines):,} faults,"
        f" {sum(line['acknowledged'] for line in lines):,} messages acknowledged,"
        f" {sum(line['lost'] for line in lines):,} lost; {len(lines) - len(violated)} of {len(lines)} tests"
        " without a violation",
    ]
    if violated:
        parts += ["", "Violations:", ""]
        parts += [
            f"- {line['fault'].replace('_', ' ')}: {violation}"
            for line in violated
            for violation in line["violations"][:5]
        ]
    return "\n".join(parts)


def put_into(path, text):
    with open(path, encoding="utf-8") as file:
        before, begin, rest = file.read().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"{path} does not have the lines {BEGIN} and {END}")
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    os.replace(path + ".new", path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--write", metavar="FILE")
    options = parser.parse_args()
    with open(options.report, encoding="utf-8") as file:
        lines = sorted((json.loads(line) for line in file), key=lambda line: line["fault"])
    if not lines:
        sys.exit("no test has reported anything")
    text = result(lines, options.commit)
    print(text)
    if options.write:
        put_into(options.write, text)


if __name__ == "__main__":
    main()
