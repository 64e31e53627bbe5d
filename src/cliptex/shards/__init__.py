"""Image-text tars: decoding, captions, index, random access, writing, importing, checking."""
