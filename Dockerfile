# The same environment for macOS and Windows, and anywhere without Python 3.11:
#   docker build -t earwitness .
#   docker run --rm -v "$PWD/results:/earwitness/results" -v "$PWD/book/_build:/earwitness/book/_build" earwitness
# The second line builds the book into book/_build/html; any other target goes after the image's name.
FROM python:3.11-slim-bookworm

RUN apt-get update \
 && apt-get install --yes --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 earwitness \
 && install --directory --owner earwitness /earwitness

USER earwitness
WORKDIR /earwitness

# What the environment depends on, so that it is made again only when one of these changes.
COPY --chown=earwitness Makefile pyproject.toml README.md LICENSE ./
COPY --chown=earwitness requirements requirements
COPY --chown=earwitness lib/earwitness/__init__.py lib/earwitness/surroundings.py lib/earwitness/
RUN make setup

COPY --chown=earwitness . .
ENTRYPOINT ["make"]
CMD ["book"]
