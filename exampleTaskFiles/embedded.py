"""Runs tasks from within a Python program: numbers that are to be prime, and a look at each answer as it comes."""

from disbatch.disBatch import DisBatcher

SUSPECTS = [101, 103, 105, 107, 109, 111, 113, 127, 131, 137]
IS_PRIME = 'test "$(factor {number} | wc -w)" -eq 2'

failed = 0
with DisBatcher("suspects", args=["-s", "localhost:2"]) as batch:
    for report in batch.map(IS_PRIME.format(number=number) for number in SUSPECTS):
        failed += report["ReturnCode"] != 0
        print(f"task {report['TaskId']}: {report['TaskCmd']} -> {report['ReturnCode']}")
print(f"{len(SUSPECTS)} tasks, of which {failed} failed")
