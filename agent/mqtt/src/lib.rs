//! kinewatch-mqtt.
