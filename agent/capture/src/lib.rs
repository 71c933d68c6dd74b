//! kinewatch-capture.
