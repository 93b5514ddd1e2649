"""Solvers: alternatives behind one seam."""
