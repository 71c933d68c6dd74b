//! Reads the header of a shared library, enough to say "cut short" or "for another machine" before anything maps it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::ProbeError;

const HEADER: usize = 64;

/// Machine numbers of the ELF specification.
const MACHINES: [(u16, &str); 6] =
    [(3, "x86"), (40, "arm"), (62, "x86_64"), (183, "aarch64"), (243, "riscv64"), (21, "powerpc64")];

/// Checks that `path` is a whole 64-bit shared library for this machine.
pub(super) fn check(path: &Path) -> Result<(), ProbeError> {
    let missing = |error: std::io::Error| ProbeError::Missing { path: path.into(), detail: error.to_string() };
    let mut file = File::open(path).map_err(missing)?;
    let size = file.metadata().map_err(missing)?.len();
    let mut header = Vec::with_capacity(HEADER);
    file.by_ref().take(HEADER as u64).read_to_end(&mut header).map_err(missing)?;
    examine(&header, size, std::env::consts::ARCH)
        .map_err(|detail| ProbeError::NotForHere { path: path.into(), detail })
}

fn examine(header: &[u8], size: u64, here: &str) -> Result<(), String> {
    if !header.starts_with(b"\x7fELF") {
        return Err("is not a shared library (no ELF header)".to_owned());
    }
    if header.len() < HEADER {
        return Err(format!("is cut short ({size} bytes)"));
    }
    if header[4] != 2 || header[5] != 1 {
        return Err("is not a 64-bit little-endian library".to_owned());
    }
    let machine = number(header, 18, 2);
    let name = MACHINES.iter().find(|(code, _)| u64::from(*code) == machine).map(|(_, name)| *name);
    if name != Some(here) {
        return Err(format!("is for {}, this machine is {here}", name.unwrap_or("another processor")));
    }
    // The table of sections is the last thing in the file.
    let end = number(header, 40, 8).saturating_add(number(header, 58, 2) * number(header, 60, 2));
    if end > size {
        return Err(format!("is cut short ({size} of {end} bytes)"));
    }
    Ok(())
}

fn number(header: &[u8], at: usize, length: usize) -> u64 {
    header[at..at + length].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(machine: u16, sections_at: u64) -> Vec<u8> {
        let mut header = vec![0; HEADER];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        header[40..48].copy_from_slice(&sections_at.to_le_bytes());
        header[58..60].copy_from_slice(&64_u16.to_le_bytes());
        header[60..62].copy_from_slice(&10_u16.to_le_bytes());
        header
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(examine(&header(62, 1000), 1640, "x86_64"), Ok(()));
        assert_eq!(examine(&header(62, 1000), 1639, "x86_64").unwrap_err(), "is cut short (1639 of 1640 bytes)");
        assert_eq!(examine(&header(183, 0), 9999, "x86_64").unwrap_err(), "is for aarch64, this machine is x86_64");
        assert_eq!(examine(b"not a library", 13, "x86_64").unwrap_err(), "is not a shared library (no ELF header)");
        assert_eq!(examine(b"\x7fELF\x02\x01", 6, "x86_64").unwrap_err(), "is cut short (6 bytes)");
    }
}
