"""An exception's traceback as text, with the module that writes it imported when there is one to write.

From Python 3.14 on `traceback` brings a third of the standard library: what takes longer than all of ordmap.
"""

from __future__ import annotations

__all__ = ["traceback_of"]


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception, with those of its relatives.

    Where nothing can be imported any more, since the item has taken all descriptors, it has no lines of source.
    """
    try:
        import traceback
    except OSError:
        return _bare(error)
    return "".join(traceback.format_exception(error))


def _bare(error: BaseException) -> str:
    lines = ["Traceback (most recent call last):"]
    place = error.__traceback__
    while place is not None:
        code = place.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {place.tb_lineno}, in {code.co_name}')
        place = place.tb_next
    return "\n".join((*lines, f"{type(error).__name__}: {error}", ""))
