"""How far each stream was read: as Meltano has it, as the warehouse does, and whether the two fit."""
