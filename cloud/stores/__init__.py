"""Where readings and records are kept: alternatives behind one seam."""
