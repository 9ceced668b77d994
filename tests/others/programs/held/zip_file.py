"""Python: The dataset holds a `ZipFile` that was opened once, and each item reads a member.

Write: as it is; fresh interpreters open it themselves
"""

import sys
import zipfile

from ordmap import ordered_imap

with zipfile.ZipFile("words.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for n in range(100):
        archive.writestr(f"{n}.txt", f"word {n}" * 1000)


class Words:
    def __init__(self):
        self.archive = zipfile.ZipFile("words.zip")

    def __len__(self):
        return 100

    def __getitem__(self, i):
        return self.archive.read(f"{i}.txt") == b"word %d" % i * 1000


assert all(ordered_imap(Words(), workers=2, backend=sys.argv[1]))
