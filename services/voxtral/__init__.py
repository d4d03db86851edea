"""Voxtral: transcript, summary, sentiment and speakers, behind RunPod's contract."""
