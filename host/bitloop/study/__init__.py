"""Studies: what many MODELs of one network are worth, evaluated exactly, compared with statistics."""
