//! Invite links as answers of the local API.

use lanrage_common::api::InviteAnswer;
use lanrage_common::invite::Invite;
use lanrage_common::protocol::InviteCode;
use qrcode::QrCode;
use qrcode::render::svg;

/// Pixels of a QR code's edge, at least.
const QR_EDGE: u32 = 240;

/// The link, and the same as QR code.
pub fn answer(invite: &Invite, code: &InviteCode) -> InviteAnswer {
    let link = invite.to_string();
    let qr_svg = qr_svg(&link);
    InviteAnswer { link, qr_svg, expires_at: code.expires_at, uses_left: code.uses_left }
}

/// A text as QR code.
pub fn qr_svg(text: &str) -> String {
    QrCode::new(text)
        .map(|qr| qr.render::<svg::Color<'_>>().min_dimensions(QR_EDGE, QR_EDGE).build())
        .unwrap_or_default() // none of ours is near the 2953 bytes that a QR code holds
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanrage_common::identity::Fingerprint;

    #[test]
    fn the_answer_holds_the_whole_link_and_a_picture() {
        let invite = Invite {
            control: "http://192.0.2.1:8667".into(),
            code: "BQUFBQUFBQUFBQUFBQUFBQ".into(),
            secret: [1; 32].into(),
            host: Fingerprint([2; 16]),
        };
        let code = InviteCode { code: invite.code.clone(), expires_at: 7, uses_left: Some(3) };
        let answer = answer(&invite, &code);
        assert_eq!(answer.link.parse(), Ok(invite));
        assert!(answer.qr_svg.contains("<svg") && answer.qr_svg.len() > 1000);
        assert_eq!((answer.expires_at, answer.uses_left), (7, Some(3)));
    }
}
