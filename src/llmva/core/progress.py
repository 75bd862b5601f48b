"""Progress bars on standard error; `TQDM_DISABLE=1` silences them."""

from collections.abc import Iterable

from tqdm import tqdm


def progress_bar(title: str | None, iterable: Iterable | None = None, *, total: int | None = None) -> tqdm:
    """Return a bar with a title, or, without one, an iterable that shows nothing."""
    # Passing disable=False would overrule the environment.
    options = {} if title else {"disable": True}
    return tqdm(iterable, desc=title, total=total, leave=False, **options)
