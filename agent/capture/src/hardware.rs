//! Whether it is the hardware decoder that failed: then the camera goes on with one on the processor.
//!
//! A decoder that fails seldom says so itself. NVIDIA's elements print to standard output and return an error, and it is
//! the source that then posts "streaming stopped, reason error"; some go on taking packets and give nothing. Asks only for
//! names of elements; called on the camera's thread.

use gstreamer as gst;
use gstreamer::prelude::*;

/// A decoder that is not the processor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Element.
    pub decoder: &'static str,
    /// Element that takes its place on the processor; `None` where this machine has none.
    pub instead: Option<&'static str>,
}

impl Hardware {
    /// Whether an error of a pipeline with this decoder is the decoder's, or that of an element which goes with it.
    /// `refused`: the last packet was, by the decoder or by what follows it.
    pub(crate) fn is_blamed(self, message: &gst::message::Error, refused: bool) -> bool {
        let from = std::iter::successors(message.src().cloned(), |object| object.parent());
        let mut elements = from.filter_map(|object| object.downcast::<gst::Element>().ok());
        if elements.any(|element| element.factory().is_some_and(|factory| self.goes_with(&factory.name()))) {
            return true;
        }
        match message.error().kind::<gst::StreamError>() {
            // This crate's own word for a stream that could not be joined to its decoder.
            Some(gst::StreamError::CodecNotFound) => true,
            // A source says the same when it failed itself.
            Some(gst::StreamError::Failed) => refused,
            _ => false,
        }
    }

    fn goes_with(self, element: &str) -> bool {
        element == self.decoder || element == "nvvidconv"
    }
}
