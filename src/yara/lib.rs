//! YARA texts to rules like others: what a field's value or a file must hold. Pure: no I/O; the engine is `boreal`.
