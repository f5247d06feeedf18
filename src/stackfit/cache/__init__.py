"""Answers kept between runs, found again by the content of everything that they rest on."""
