//! kinewatch-ota.
