//! What other programs of the machine print, for `kinewatch doctor`.

use kinewatch::doctor::unit::Unit;

use super::text;

pub fn systemd(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Unit::Known(unit) = Unit::parse(text) else { return };
    let _ = (unit.pid(), unit.config(), unit.credentials(), unit.variable("ORT_DYLIB_PATH"), unit.number("NRestarts"));
}
