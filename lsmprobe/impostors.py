"""What often lies in the place of a file that was to be downloaded or copied."""

# How such files begin, what they are and what to do; `{what}` is what should lie there.
BEGINNINGS = {
    b"version https://git-lfs": "is a Git LFS pointer, not {what}; run: git lfs pull",
    b"<": "is an HTML or XML page, not {what} (a failed download?); download it again",
    b"PK\x03\x04": "is a zip archive, not {what}; unpack it",
    b"\x1f\x8b": "is a gzip archive, not {what}; unpack it",
}
HEAD = 512  # bytes that are enough to tell


def impostor(head: bytes, what: str, *, is_text: bool = False) -> str | None:
    """What a file is in truth, and what to do, after its name in a message; None if unknown.

    Args:
        head: its first bytes, up to `HEAD`.
        what: what it should hold: `audio`, `weights`, `a config`.
        is_text: whether that is text.

    >>> impostor(b"<!DOCTYPE html>", "audio")
    'is an HTML or XML page, not audio (a failed download?); download it again'
    """
    if not head:
        return "is empty (0 bytes); copy or download it again"
    for beginning, reason in BEGINNINGS.items():
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(beginning):
            return reason.format(what=what)
    if not head.strip(b"\0"):
        return "begins with nothing but zero bytes (a failed copy?); copy it again"
    if not is_text and min(head) >= ord("\t"):
        return f"is text, not {what}; put the right file in its place"
    return None
