"""django: The caller has asked SQLite by the ORM before the loop, and each item asks it.

Write: as it is with SQLite; a server's connection is opened in the worker: begin the workers before the first query
"""

import sys

import django
from django.conf import settings

if not settings.configured:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "words.db"}
    settings.configure(INSTALLED_APPS=["django.contrib.contenttypes"], DATABASES={"default": database})
    django.setup()

from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command

from ordmap import Processes, Spawn, Threads, ordered_map


def begin(database):
    """Set Django up in a fresh interpreter."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(INSTALLED_APPS=["django.contrib.contenttypes"], DATABASES={"default": database})
        django.setup()


def label(n):
    from django.contrib.contenttypes.models import ContentType

    return ContentType.objects.get(model=f"model {n}").app_label


call_command("migrate", verbosity=0)
for n in range(10):
    ContentType.objects.create(app_label=f"label {n}", model=f"model {n}")

backend = {"processes": Processes, "spawn": Spawn, "threads": Threads}[sys.argv[1]]
pool = backend(2, initializer=begin, initargs=(database,))
assert list(ordered_map(label, range(10), backend=pool)) == [f"label {n}" for n in range(10)]
