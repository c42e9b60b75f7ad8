"""The atlas: the panels of a sweep as a folder of web pages."""
