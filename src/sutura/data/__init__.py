"""data room"""
