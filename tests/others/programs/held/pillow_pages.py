"""pillow: The dataset holds an image of many pages, and each item seeks one and looks at it.

Write: as it is with processes; else open it in the item
Not threads: they share the page that the image is at, in any pool
"""

import sys

from PIL import Image

from ordmap import ordered_imap

pages = [Image.new("L", (200, 200), n * 10) for n in range(20)]
pages[0].save("pages.tif", save_all=True, append_images=pages[1:], compression="tiff_deflate")


class Pages:
    def __init__(self):
        self.image = Image.open("pages.tif")

    def __len__(self):
        return 20

    def __getitem__(self, i):
        self.image.seek(i)
        return self.image.getpixel((100, 100))


assert list(ordered_imap(Pages(), workers=2, backend=sys.argv[1])) == [n * 10 for n in range(20)]
