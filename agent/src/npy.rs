//! Writes a NumPy file of frames whose number is known only at the end. Format: numpy/lib/format.py, version 1.0.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

/// Header length, fixed so that the number of frames can be written last.
const HEADER: usize = 128;

/// A file of `uint8 [frames, height, width, 3]`.
#[derive(Debug)]
pub struct FramesFile {
    out: BufWriter<File>,
    height: u32,
    width: u32,
    frames: u64,
}

impl FramesFile {
    /// Creates the file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(path: &Path, width: u32, height: u32) -> io::Result<Self> {
        let mut file = Self { out: BufWriter::new(File::create(path)?), height, width, frames: 0 };
        file.header()?;
        Ok(file)
    }

    /// Appends a frame of packed RGB.
    ///
    /// # Errors
    /// Those of the file system; a frame of another size.
    pub fn push(&mut self, pixels: &[u8]) -> io::Result<()> {
        if pixels.len() != self.width as usize * self.height as usize * 3 {
            return Err(io::Error::other("a frame has another size than the file"));
        }
        self.frames += 1;
        self.out.write_all(pixels)
    }

    /// Writes the number of frames, which it returns.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(mut self) -> io::Result<u64> {
        self.out.seek(SeekFrom::Start(0))?;
        self.header()?;
        self.out.flush()?;
        Ok(self.frames)
    }

    fn header(&mut self) -> io::Result<()> {
        let shape = format!("({}, {}, {}, 3)", self.frames, self.height, self.width);
        let dict = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
        let text = HEADER - 10;
        self.out.write_all(b"\x93NUMPY\x01\x00")?;
        self.out.write_all(&(text as u16).to_le_bytes())?;
        writeln!(self.out, "{dict:<width$}", width = text - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_tells_the_shape_and_is_aligned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let mut file = FramesFile::create(&path, 2, 1).unwrap();
        file.push(&[1, 2, 3, 4, 5, 6]).unwrap();
        file.push(&[7; 6]).unwrap();
        assert!(file.push(&[0; 5]).is_err());
        assert_eq!(file.finish().unwrap(), 2);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((&bytes[..8], bytes[8], bytes.len()), (&b"\x93NUMPY\x01\x00"[..], 118, 128 + 12));
        assert!(String::from_utf8_lossy(&bytes[10..128]).contains("'shape': (2, 1, 2, 3)"));
        assert_eq!(bytes[127], b'\n');
    }
}
