"""Evaluation that others can trust and compare: one module for each question, ``metrics`` for the numbers.

retrieval, retrieval_files, retrieval_page     find the report of a scan and the scan of a report
zero_shot, zero_shot_files, zero_shot_page     name abnormalities by prompts
pool, prompts, provenance                      what is evaluated, against what, and where numbers come from
charts                                         the pictures of numbers on the HTML report
"""
