"""What an HTML page holds."""

from html.parser import HTMLParser

VOID = {"meta"}


class Page(HTMLParser):
    """What a page consists of; complains of tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.attributes, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def stands_alone(self):
        """Tell whether the page needs no script and refers to nothing outside."""
        names = {name for name, _ in self.attributes}
        fetching = {"script", "link", "img", "iframe", "object", "embed", "image", "use"} & set(self.tags)
        style = "".join(self.words)
        return not fetching and not names & {"src", "xlink:href", "action", "onload"} and "url(" not in style
