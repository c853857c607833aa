//! QR codes as PNG and SVG.
//!
//! Pure: takes the text and how the image should be, gives the image. A code is a square of modules (ISO/IEC 18004), dark
//! on light, with a quiet zone around it that scanners need to find it.

use std::fmt::Write as _;

use qrcode::{Color, EcLevel, QrCode};

/// The smallest image, in pixels a side.
pub const QR_SIZE_PX_MIN: u32 = 64;

/// The largest image, in pixels a side: for a poster there is SVG.
pub const QR_SIZE_PX_MAX: u32 = 2048;

/// The widest quiet zone, in modules. The standard asks for 4.
pub const QR_MARGIN_MODULES_MAX: u32 = 16;

/// How much of the code may be unreadable and it is read nevertheless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ErrorCorrection {
    /// L: 7 %.
    Low,
    /// M: 15 %.
    #[default]
    Medium,
    /// Q: 25 %.
    Quartile,
    /// H: 30 %.
    High,
}

/// Why there is no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QrError {
    /// Too small, too large, or too small for the text with its quiet zone.
    #[error("the size is {needed_px} to {QR_SIZE_PX_MAX} pixels")]
    Size {
        /// The smallest that would do.
        needed_px: u32,
    },
    /// The quiet zone is too wide.
    #[error("the margin is 0 to {QR_MARGIN_MODULES_MAX} modules")]
    Margin,
    /// No code holds so much text.
    #[error("the text is too long for a QR code")]
    TextTooLong,
    /// The PNG encoder failed.
    #[error("the image could not be encoded")]
    Encode,
}

/// A square of modules with its quiet zone.
struct Modules {
    dark: Vec<bool>,
    /// Of the code alone.
    side: u32,
    margin: u32,
}

impl Modules {
    /// Checks the figures and lays out the code.
    fn of(text: &str, size_px: u32, margin: u32, ec: ErrorCorrection) -> Result<Self, QrError> {
        if margin > QR_MARGIN_MODULES_MAX {
            return Err(QrError::Margin);
        }
        let level = match ec {
            ErrorCorrection::Low => EcLevel::L,
            ErrorCorrection::Medium => EcLevel::M,
            ErrorCorrection::Quartile => EcLevel::Q,
            ErrorCorrection::High => EcLevel::H,
        };
        let code = QrCode::with_error_correction_level(text, level).map_err(|_| QrError::TextTooLong)?;
        let side = u32::try_from(code.width()).map_err(|_| QrError::TextTooLong)?;
        let dark = code.into_colors().into_iter().map(|color| color == Color::Dark).collect();
        let modules = Self { dark, side, margin };
        // A module is a pixel at least.
        let needed_px = modules.total().max(QR_SIZE_PX_MIN);
        if !(needed_px..=QR_SIZE_PX_MAX).contains(&size_px) {
            return Err(QrError::Size { needed_px });
        }
        Ok(modules)
    }

    /// Modules a side, quiet zone and all.
    fn total(&self) -> u32 {
        self.side + 2 * self.margin
    }

    /// The code without its quiet zone, row by row.
    fn rows(&self) -> impl Iterator<Item = &[bool]> {
        self.dark.chunks_exact(self.side as usize)
    }
}

/// Draws `text` as a PNG of one bit a pixel, exactly `size_px` a side. Modules are whole pixels; what is left over widens
/// the quiet zone.
pub fn qr_png(text: &str, size_px: u32, margin_modules: u32, ec: ErrorCorrection) -> Result<Vec<u8>, QrError> {
    let modules = Modules::of(text, size_px, margin_modules, ec)?;
    let module_px = size_px / modules.total();
    let border_px = (size_px - module_px * modules.side) / 2;

    let row_bytes = size_px.div_ceil(8) as usize;
    let light = vec![0xff_u8; row_bytes];
    let mut pixels = Vec::with_capacity(row_bytes * size_px as usize);
    pixels.extend(light.repeat(border_px as usize));
    for row in modules.rows() {
        let mut line = light.clone();
        for (column, _) in (0_u32..).zip(row).filter(|(_, dark)| **dark) {
            let from_px = border_px + column * module_px;
            for x in from_px..from_px + module_px {
                line[(x / 8) as usize] &= !(0x80 >> (x % 8));
            }
        }
        pixels.extend(line.repeat(module_px as usize));
    }
    pixels.resize(row_bytes * size_px as usize, 0xff);
    encode_png(size_px, &pixels).map_err(|_| QrError::Encode)
}

fn encode_png(size_px: u32, pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut image = Vec::new();
    let mut encoder = png::Encoder::new(&mut image, size_px, size_px);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(image)
}

/// Draws `text` as an SVG of `size_px` a side: one path, a stroke for each run of dark modules. The text itself is not in
/// it, so nothing has to be escaped.
pub fn qr_svg(text: &str, size_px: u32, margin_modules: u32, ec: ErrorCorrection) -> Result<String, QrError> {
    let modules = Modules::of(text, size_px, margin_modules, ec)?;
    let total = modules.total();
    let mut path = String::new();
    for (y, row) in (modules.margin..).zip(modules.rows()) {
        let mut x = modules.margin;
        for run in row.chunk_by(|a, b| a == b) {
            let length = u32::try_from(run.len()).unwrap_or(u32::MAX);
            if run.first() == Some(&true) {
                // Writing to a string cannot fail.
                let _ = write!(path, "M{x} {y}h{length}v1h-{length}z");
            }
            x = x.saturating_add(length);
        }
    }
    Ok(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{size_px}" height="{size_px}" viewBox="0 0 {total} {total}" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h{total}v{total}H0z"/><path fill="#000" d="{path}"/></svg>"##
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use ErrorCorrection::{High, Low, Medium, Quartile};

    const URL: &str = "https://sho.rt/aZ3_x-9";

    /// The image as one bit a pixel, and what a scanner reads in it.
    fn scanned(size: usize, is_dark: impl Fn(usize, usize) -> bool) -> String {
        let mut image =
            rqrr::PreparedImage::prepare_from_greyscale(size, size, |x, y| if is_dark(x, y) { 0 } else { 255 });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1, "one code is found");
        grids[0].decode().unwrap().1
    }

    fn decoded_png(image: &[u8]) -> (usize, Vec<u8>) {
        let mut decoder = png::Decoder::new(Cursor::new(image));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(
            (info.width, info.color_type, info.bit_depth),
            (info.height, png::ColorType::Grayscale, png::BitDepth::Eight)
        );
        (info.width as usize, pixels)
    }

    /// Draws the SVG's path with `scale` pixels a module.
    fn rasterised_svg(svg: &str, scale: usize) -> (usize, Vec<bool>) {
        let view = svg.split("viewBox=\"0 0 ").nth(1).unwrap().split(' ').next().unwrap();
        let total: usize = view.parse().unwrap();
        let side = total * scale;
        let mut dark = vec![false; side * side];
        let path = svg.split("fill=\"#000\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        for run in path.split_terminator('z') {
            let numbers: Vec<usize> = run
                .split(|c: char| !c.is_ascii_digit())
                .filter(|part| !part.is_empty())
                .map(|part| part.parse().unwrap())
                .collect();
            let [x, y, length, 1, back] = numbers[..] else { panic!("{run}") };
            assert_eq!(length, back);
            for row in y * scale..(y + 1) * scale {
                dark[row * side + x * scale..row * side + (x + length) * scale].fill(true);
            }
        }
        (side, dark)
    }

    #[test]
    fn a_scanner_reads_the_text_back_whatever_the_size_margin_and_correction() {
        for (size, margin, ec) in [
            (64, 0, Low),
            (64, 4, Low),
            (200, 4, Medium),
            (256, 4, Medium),
            (257, 2, Quartile),
            (999, 16, High),
            (2048, 4, High),
        ] {
            let (side, pixels) = decoded_png(&qr_png(URL, size, margin, ec).unwrap());
            assert_eq!(side, size as usize);
            // A scanner cannot find a code without a quiet zone in a bare bitmap, so one is put around it.
            let (zone, quiet) = (side + 32, |at: usize| at.checked_sub(16).filter(|&at| at < side));
            let read = scanned(zone, |x, y| quiet(x).zip(quiet(y)).is_some_and(|(x, y)| pixels[y * side + x] == 0));
            assert_eq!(read, URL, "{size} {margin} {ec:?}");

            let svg = qr_svg(URL, size, margin, ec).unwrap();
            assert!(svg.contains(&format!("width=\"{size}\" height=\"{size}\"")));
            let (side, dark) = rasterised_svg(&svg, 4);
            let (zone, quiet) = (side + 32, |at: usize| at.checked_sub(16).filter(|&at| at < side));
            assert_eq!(scanned(zone, |x, y| quiet(x).zip(quiet(y)).is_some_and(|(x, y)| dark[y * side + x])), URL);
        }
    }

    #[test]
    fn the_quiet_zone_is_as_wide_as_asked_for_and_even_on_all_sides() {
        for (size, margin, module) in [(256, 4, 7), (300, 0, 12), (301, 16, 5)] {
            let (side, pixels) = decoded_png(&qr_png(URL, size, margin, Medium).unwrap());
            let dark: Vec<_> =
                (0..side * side).filter(|at| pixels[*at] == 0).map(|at| (at % side, at / side)).collect();
            let (left, right) = (dark.iter().map(|p| p.0).min().unwrap(), dark.iter().map(|p| p.0).max().unwrap());
            let (top, bottom) = (dark.iter().map(|p| p.1).min().unwrap(), dark.iter().map(|p| p.1).max().unwrap());
            assert_eq!((right - left + 1, bottom - top + 1), (25 * module, 25 * module), "{size} {margin}");
            assert!(left >= margin as usize * module && left == top);
            assert!((side - 1 - right).abs_diff(left) <= 1 && right == bottom);
        }
    }

    #[test]
    fn figures_out_of_bounds_and_texts_too_long_are_refused() {
        let long = "x".repeat(3_000);
        for (text, size, margin, expected) in [
            (URL, 63, 4, QrError::Size { needed_px: 64 }),
            (URL, 0, 4, QrError::Size { needed_px: 64 }),
            (URL, 2049, 4, QrError::Size { needed_px: 64 }),
            (URL, u32::MAX, 4, QrError::Size { needed_px: 64 }),
            (&"x".repeat(500), 64, 16, QrError::Size { needed_px: 117 }),
            (URL, 256, 17, QrError::Margin),
            (URL, 256, u32::MAX, QrError::Margin),
            (&long, 2048, 4, QrError::TextTooLong),
        ] {
            assert_eq!(qr_png(text, size, margin, Medium), Err(expected), "{size} {margin}");
            assert_eq!(qr_svg(text, size, margin, Medium), Err(expected), "{size} {margin}");
        }
    }

    #[test]
    fn an_image_of_usual_size_is_small() {
        assert!(qr_png(URL, 256, 4, Medium).unwrap().len() < 1_500);
        assert!(qr_svg(URL, 256, 4, Medium).unwrap().len() < 6_000);
    }
}
