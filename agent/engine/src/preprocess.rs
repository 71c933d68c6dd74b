//! Packed RGB bytes to a model's input: layout, colour order and normalisation. The picture already has the model's
//! size; resizing is the capture chain's work.
//!
//! Never allocates. `(byte - mean) / std` is looked up in a table of 256 values a channel, computed in the same
//! precision and order as PyTorch does, so the result is the same to the last bit.

use kinewatch_core::manifest::{Colour, Dtype, Input, Layout};

use crate::backend::TensorMut;

/// Turns frames of one model into its input.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    pixels: usize,
    layout: Layout,
    element: Dtype,
    /// Byte of the pixel that channel `c` of the tensor reads.
    source: [usize; 3],
    tables: Box<[[f32; 256]; 3]>,
}

impl Preprocessor {
    /// For an input as the manifest describes it. `mean` and `std` are in the order of the tensor's channels.
    #[must_use]
    pub fn new(input: &Input) -> Self {
        let mut tables = Box::new([[0.0; 256]; 3]);
        for (channel, table) in tables.iter_mut().enumerate() {
            for (byte, value) in (0_u8..=255).zip(table.iter_mut()) {
                *value = (f32::from(byte) - input.mean[channel]) / input.std[channel];
            }
        }
        Self {
            pixels: input.spec.width as usize * input.spec.height as usize,
            layout: input.layout,
            element: input.dtype,
            source: match input.colour {
                Colour::Rgb => [0, 1, 2],
                Colour::Bgr => [2, 1, 0],
            },
            tables,
        }
    }

    /// Bytes of a frame, which is also the number of elements of its tensor.
    #[must_use]
    pub fn elements(&self) -> usize {
        3 * self.pixels
    }

    /// Writes one frame of [`Self::elements`] bytes as floats.
    pub fn write_f32(&self, frame: &[u8], to: &mut [f32]) {
        match self.layout {
            Layout::Nchw => self.planes(frame, to, |channel, byte| self.tables[channel][usize::from(byte)]),
            Layout::Nhwc => self.rows(frame, to, |channel, byte| self.tables[channel][usize::from(byte)]),
        }
    }

    /// Writes one frame of [`Self::elements`] bytes as bytes: the graph normalises.
    pub fn write_u8(&self, frame: &[u8], to: &mut [u8]) {
        match self.layout {
            Layout::Nchw => self.planes(frame, to, |_, byte| byte),
            Layout::Nhwc => self.rows(frame, to, |_, byte| byte),
        }
    }

    /// Dtype type written.
    #[must_use]
    pub fn element(&self) -> Dtype {
        self.element
    }

    pub(crate) fn write(&self, frame: &[u8], to: TensorMut<'_>) {
        match to {
            TensorMut::F32(to) => self.write_f32(frame, to),
            TensorMut::U8(to) => self.write_u8(frame, to),
        }
    }

    fn planes<T>(&self, frame: &[u8], to: &mut [T], value: impl Fn(usize, u8) -> T) {
        for (channel, plane) in to.chunks_exact_mut(self.pixels).enumerate().take(3) {
            let source = self.source[channel];
            for (element, pixel) in plane.iter_mut().zip(frame.chunks_exact(3)) {
                *element = value(channel, pixel[source]);
            }
        }
    }

    fn rows<T>(&self, frame: &[u8], to: &mut [T], value: impl Fn(usize, u8) -> T) {
        for (elements, pixel) in to.chunks_exact_mut(3).zip(frame.chunks_exact(3)) {
            for (channel, element) in elements.iter_mut().enumerate() {
                *element = value(channel, pixel[self.source[channel]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kinewatch_core::frame::{Filter, FrameSpec, Resize, ScaleOrder};

    use super::*;

    fn input(layout: Layout, colour: Colour) -> Input {
        let (resize, filter, order) = (Resize::Stretch, Filter::Bilinear, ScaleOrder::ScaleConvert);
        let spec = FrameSpec { width: 24, height: 16, resize, filter, order };
        let (mut mean, mut std) = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]);
        if colour == Colour::Bgr {
            mean.reverse();
            std.reverse();
        }
        Input { spec, layout, colour, dtype: Dtype::Float32, mean, std }
    }

    fn npy<T: npyz::Deserialize>(name: &str) -> Vec<T> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/preprocess/").to_owned() + name;
        npyz::NpyFile::new(std::fs::File::open(path).unwrap()).unwrap().into_vec().unwrap()
    }

    #[test]
    fn equals_pytorch_to_the_last_bit() {
        let frame: Vec<u8> = npy("frame.npy");
        for (layout, colour, file) in [
            (Layout::Nchw, Colour::Rgb, "nchw-rgb.npy"),
            (Layout::Nhwc, Colour::Rgb, "nhwc-rgb.npy"),
            (Layout::Nhwc, Colour::Bgr, "nhwc-bgr.npy"),
        ] {
            let preprocessor = Preprocessor::new(&input(layout, colour));
            let mut tensor = vec![f32::NAN; preprocessor.elements()];
            preprocessor.write_f32(&frame, &mut tensor);
            assert_eq!(tensor, npy::<f32>(file), "{file}");
        }
    }

    #[test]
    fn bytes_are_only_moved() {
        let frame: Vec<u8> = npy("frame.npy");
        let mut tensor = vec![0; frame.len()];
        Preprocessor::new(&input(Layout::Nhwc, Colour::Rgb)).write_u8(&frame, &mut tensor);
        assert_eq!(tensor, frame);
        Preprocessor::new(&input(Layout::Nchw, Colour::Bgr)).write_u8(&frame, &mut tensor);
        assert_eq!((tensor[0], tensor[1]), (frame[2], frame[5]), "the blue plane comes first");
        assert_eq!(tensor[2 * 24 * 16], frame[0], "the red plane comes last");
    }
}
