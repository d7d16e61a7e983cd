"""The book: runs its pages and draws what they show. The only room that knows notebooks.

``experiments`` is the registry, ``pages`` runs one page, ``tables`` and ``html`` are what a template calls,
``catalogues`` lists corpora and experiments, ``studies`` holds the measurements that only pages show. It may import
every room; only the command line imports it.
"""
