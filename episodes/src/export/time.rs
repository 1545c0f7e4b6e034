//! Times as people and files write them.

use std::fmt::Write;

use super::error::ExportError;

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 86_400_000;

/// A day since the Unix epoch as year, month and day of the month. Howard Hinnant's `civil_from_days`.
pub(crate) fn civil(day: i64) -> (i64, u32, u32) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

/// A day since the Unix epoch as `2026-11-21`.
pub(crate) fn date_text(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Milliseconds since the Unix epoch as `2026-11-21T09:00:00.000Z`.
#[must_use]
pub fn time_text(ms: i64) -> String {
    let mut text = String::with_capacity(24);
    push_time(&mut text, ms);
    text
}

/// The same, appended.
pub(crate) fn push_time(text: &mut String, ms: i64) {
    let (year, month, day) = civil(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let (hour, minute, second, milli) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60, of_day % 1000);
    // writing to a string cannot fail
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z");
}

/// Reads a time: a day (`2026-11-21`, its first moment, UTC), a time with its zone (`2026-11-21T09:00:00+08:00`), or
/// milliseconds since the Unix epoch. `name` is what an error calls it.
///
/// # Errors
/// When the text is none of these.
pub fn parse_time(text: &str, name: &str) -> Result<i64, ExportError> {
    let text = text.trim();
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    if let Ok(time) = format!("{text}T00:00:00Z").parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    Err(ExportError::Request(format!(
        "{name} {text:?} is no time: give a day (2026-11-21), a time with its zone (2026-11-21T09:00:00Z), or Unix \
         milliseconds"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_a_calendar_library_writes_them() {
        for ms in [0, -1, 951_782_399_999, 951_782_400_000, 1_709_164_800_000, 1_795_253_638_123, 4_107_542_399_999] {
            let expected = jiff::Timestamp::from_millisecond(ms).unwrap();
            assert_eq!(time_text(ms).parse::<jiff::Timestamp>().unwrap(), expected);
            assert!(expected.to_string().starts_with(&date_text(ms.div_euclid(DAY_MS))), "{ms}");
        }
        assert_eq!(time_text(0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn days_times_and_milliseconds_are_read() {
        assert_eq!(parse_time("1970-01-02", "from").unwrap(), DAY_MS);
        assert_eq!(parse_time("1970-01-01T08:00:00+08:00", "from").unwrap(), 0);
        assert_eq!(parse_time("42", "from").unwrap(), 42);
        assert!(parse_time("yesterday", "from").unwrap_err().to_string().starts_with("from \"yesterday\""));
    }
}
