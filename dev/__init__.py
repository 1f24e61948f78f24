"""The development environment: private servers, virtual environments, and the targets of the Makefile.

Standard library only, Python 3.10 or newer: this code runs before anything is installed.
"""
