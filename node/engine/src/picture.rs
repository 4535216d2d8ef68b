//! From a photo to a network's input, as the EfficientNet-Lite family wants it.

use std::io::Cursor;

use image::{DynamicImage, ImageReader, Limits, RgbImage};

use crate::tensor::Tensor;

/// Why a picture cannot become an input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The bytes are not a JPEG or PNG that can be decoded.
    #[error("this is not a JPEG or PNG picture that can be read: {0}")]
    Decode(#[from] image::ImageError),
    /// The network's input is not a size one can scale to.
    #[error("a picture cannot be scaled to {side} x {side} pixels; the limit is {SIDE_MAX}")]
    Side {
        /// The size asked for.
        side: usize,
    },
}

/// Decodes a JPEG or PNG and turns it into an input of shape `[1, 3, side, side]`.
///
/// The middle of the picture, a square of 224/256 of its short side, is scaled to `side` pixels
/// (bicubic); its RGB values, from 0 to 255, become `(value - 127) / 128`.
///
/// # Errors
/// When the bytes are not such a picture, it is larger than 16,384 pixels along one side, or
/// `side` is 0 or above 4,096.
pub fn preprocess(bytes: &[u8], side: usize) -> Result<Tensor, PictureError> {
    if !(1..=SIDE_MAX).contains(&side) {
        return Err(PictureError::Side { side });
    }
    let picture = decode(bytes)?.into_rgb8();
    let scaled = resample(&picture, side);
    let mut values = Vec::with_capacity(3 * side * side);
    for channel in 0..3 {
        values.extend(scaled.iter().map(|pixel| (f32::from(pixel[channel]) - 127.0) / 128.0));
    }
    Ok(Tensor::from_f32(vec![1, 3, side, side], values).expect("three values for each pixel"))
}

/// Pictures come from strangers: their size is checked before memory is taken.
fn decode(bytes: &[u8]) -> Result<DynamicImage, PictureError> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(image::ImageError::IoError)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(PICTURE_SIDE_MAX);
    limits.max_image_height = Some(PICTURE_SIDE_MAX);
    reader.limits(limits);
    Ok(reader.decode()?)
}

/// Scales the middle of a picture to `side x side` pixels, row by row.
///
/// First along rows, then along columns, rounding in between: what PIL's `resize` does with the
/// square as its `box`, so the values are those that the networks were evaluated on. The square
/// may begin between two pixels, which is why this does not crop first.
fn resample(picture: &RgbImage, side: usize) -> Vec<[u8; 3]> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let square = width.min(height) as f64 * 224.0 / 256.0;
    let columns = taps(width, square, side);
    let rows = taps(height, square, side);
    // Only the rows that some tap reads.
    let first = rows[0].first;
    let end = rows.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or(first);
    let pixels = picture.as_raw();
    let narrow: Vec<[u8; 3]> = (first..end)
        .flat_map(|y| {
            let row = &pixels[y * width * 3..][..width * 3];
            columns
                .iter()
                .map(move |taps| taps.blend(|x| [row[x * 3], row[x * 3 + 1], row[x * 3 + 2]]))
        })
        .collect();
    rows.iter()
        .flat_map(|taps| {
            let narrow = &narrow;
            (0..side).map(move |x| taps.blend(|y| narrow[(y - first) * side + x]))
        })
        .collect()
}

/// The pixels that make one pixel of the result, along one dimension.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

impl Taps {
    fn blend(&self, pixel: impl Fn(usize) -> [u8; 3]) -> [u8; 3] {
        let mut sum = [0.0; 3];
        for (i, weight) in self.weights.iter().enumerate() {
            let values = pixel(self.first + i);
            (0..3).for_each(|channel| sum[channel] += weight * f64::from(values[channel]));
        }
        // Half rounds up, and `as` keeps to 0..=255.
        sum.map(|value| (value + 0.5).floor() as u8)
    }
}

/// Bicubic taps to scale the middle `length` of `pixels` to `side`.
///
/// When the picture gets smaller the filter gets as much wider, so that no pixel is skipped.
fn taps(pixels: usize, length: f64, side: usize) -> Vec<Taps> {
    let scale = length / side as f64;
    let stretch = scale.max(1.0);
    let start = (pixels as f64 - length) / 2.0;
    (0..side)
        .map(|i| {
            let centre = start + (i as f64 + 0.5) * scale;
            let first = (centre - 2.0 * stretch + 0.5).max(0.0) as usize;
            let end = ((centre + 2.0 * stretch + 0.5) as usize).min(pixels);
            let weight = |x: usize| bicubic((x as f64 + 0.5 - centre) / stretch);
            let sum: f64 = (first..end).map(weight).sum();
            Taps { first, weights: (first..end).map(|x| weight(x) / sum).collect() }
        })
        .collect()
}

/// Keys' cubic convolution kernel with `a = -1/2`.
fn bicubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

/// Largest input of a network, in pixels along one side.
const SIDE_MAX: usize = 4_096;

/// Largest photo, in pixels along one side.
const PICTURE_SIDE_MAX: u32 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grey_picture_stays_grey() {
        let mut png = Cursor::new(Vec::new());
        let grey = image::RgbImage::from_pixel(40, 20, image::Rgb([127, 255, 0]));
        grey.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let input = preprocess(png.get_ref(), 8).unwrap();
        assert_eq!(input.shape(), [1, 3, 8, 8]);
        assert_eq!(input.as_f32()[..64], [0.0; 64]);
        assert_eq!(input.as_f32()[64..128], [1.0; 64]);
        assert_eq!(input.as_f32()[128..], [-127.0 / 128.0; 64]);
    }

    #[test]
    fn any_size_of_picture_can_be_scaled() {
        for (width, height) in [(1, 1), (1, 50), (3, 2), (257, 256)] {
            let mut png = Cursor::new(Vec::new());
            RgbImage::from_pixel(width, height, image::Rgb([255; 3]))
                .write_to(&mut png, image::ImageFormat::Png)
                .unwrap();
            let input = preprocess(png.get_ref(), 17).unwrap();
            assert_eq!(input.as_f32(), [1.0; 3 * 17 * 17]);
        }
    }

    #[test]
    fn what_is_no_picture_says_so() {
        let message = preprocess(b"hello", 224).unwrap_err().to_string();
        assert!(
            message.starts_with("this is not a JPEG or PNG picture that can be read"),
            "{message}"
        );
        assert!(preprocess(b"", 0).unwrap_err().to_string().contains("cannot be scaled to 0 x 0"));
    }
}
