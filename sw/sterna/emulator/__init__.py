"""The accelerator as software: a register map and a memory that run the same programs, without timing."""
