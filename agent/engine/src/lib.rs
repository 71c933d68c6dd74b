//! kinewatch-engine.
