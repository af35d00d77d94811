"""The policies in force. A folder of files comes in and is followed; the last valid version of each, and every
earlier one, go out.
"""
