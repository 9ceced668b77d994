"""Python: The dataset holds a binary file that was opened once, and each item seeks and reads.

Write: as it is with processes; in threads, `os.pread` or a lock; fresh interpreters open it themselves
Not threads: they share the position of the file, in any pool
"""

import sys

from ordmap import ordered_imap

SIZE = 20_000
with open("records.bin", "wb") as file:
    for n in range(200):
        file.write(n.to_bytes(4, "little") * (SIZE // 4))


class Records:
    def __init__(self):
        self.file = open("records.bin", "rb")

    def __len__(self):
        return 200

    def __getitem__(self, i):
        self.file.seek(i * SIZE)
        record = self.file.read(SIZE)
        if record != i.to_bytes(4, "little") * (SIZE // 4):
            raise ValueError("this is another item's record")
        return i


assert list(ordered_imap(Records(), workers=2, backend=sys.argv[1])) == list(range(200))
