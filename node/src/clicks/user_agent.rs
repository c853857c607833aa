//! What a `User-Agent` header says of the browser, the operating system and the device; and whether it is a bot's.
//!
//! Families only, no versions: that is what a summary shows. Tables of tokens, read from the top, because every browser
//! also names those it wants to be taken for: the more special token stands first. What browsers send today is in the test.

/// What is known of a visitor's software. The names are a small fixed set, so they make short rows and short lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserAgent {
    /// The browser's family: `Chrome`, `Safari`, ...
    pub browser: &'static str,
    /// The operating system's family: `Windows`, `iOS`, ...
    pub operating_system: &'static str,
    /// `desktop`, `mobile`, `tablet` or `other`.
    pub device: &'static str,
    /// Whether it is a crawler, a link preview, a tool or a library, and no person's browser.
    pub bot: bool,
}

/// What is said of software that no table knows.
pub const OTHER: &str = "Other";
/// What is said of a device that is neither a computer, a phone nor a tablet.
pub const OTHER_DEVICE: &str = "other";

type Table = &'static [(&'static str, &'static str)];

const BROWSERS: Table = &[
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("Edge/", "Edge"),
    ("OPR/", "Opera"),
    ("OPT/", "Opera"),
    ("OPX/", "Opera"),
    ("OPiOS/", "Opera"),
    ("Opera", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("YaBrowser/", "Yandex Browser"),
    ("Vivaldi/", "Vivaldi"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("Ddg/", "DuckDuckGo"),
    ("UCBrowser/", "UC Browser"),
    ("UCWEB", "UC Browser"),
    ("MiuiBrowser/", "Xiaomi Browser"),
    ("HuaweiBrowser/", "Huawei Browser"),
    ("MicroMessenger/", "WeChat"),
    ("MQQBrowser/", "QQ Browser"),
    ("QQBrowser/", "QQ Browser"),
    ("Silk/", "Amazon Silk"),
    ("Whale/", "Whale"),
    ("Instagram", "Instagram"),
    ("FBAN/", "Facebook"),
    ("FBAV/", "Facebook"),
    ("BytedanceWebview", "TikTok"),
    ("musical_ly", "TikTok"),
    ("Snapchat/", "Snapchat"),
    ("Pinterest/", "Pinterest"),
    ("LinkedInApp", "LinkedIn"),
    ("Line/", "LINE"),
    ("GSA/", "Google app"),
    ("FxiOS/", "Firefox"),
    ("Focus/", "Firefox"),
    ("Klar/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Trident/", "Internet Explorer"),
    ("MSIE ", "Internet Explorer"),
    // Safari's own tokens come last: almost everything above claims to be Safari, too. The web views of iOS name no browser.
    ("Android", "Android Browser"),
    ("Safari/", "Safari"),
    ("iPhone", "Safari"),
    ("iPad", "Safari"),
];

const OPERATING_SYSTEMS: Table = &[
    ("Windows Phone", OTHER),
    ("Tizen", OTHER),
    ("Web0S", OTHER),
    ("KAIOS", OTHER),
    ("PlayStation", OTHER),
    ("Nintendo", OTHER),
    ("BSD", OTHER),
    ("Windows", "Windows"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("iPod", "iOS"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "macOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
];

const DEVICES: Table = &[
    ("SMART-TV", OTHER_DEVICE),
    ("SmartTV", OTHER_DEVICE),
    ("Smart TV", OTHER_DEVICE),
    ("Android TV", OTHER_DEVICE),
    ("AppleTV", OTHER_DEVICE),
    ("BRAVIA", OTHER_DEVICE),
    ("; AFT", OTHER_DEVICE),
    ("Web0S", OTHER_DEVICE),
    ("PlayStation", OTHER_DEVICE),
    ("Nintendo", OTHER_DEVICE),
    ("Xbox", OTHER_DEVICE),
    ("iPad", "tablet"),
    ("Tablet", "tablet"),
    ("iPhone", "mobile"),
    ("iPod", "mobile"),
    ("Mobi", "mobile"),
    // Phones with Android say `Mobile`, tablets do not: https://developer.chrome.com/docs/multidevice/user-agent
    ("Android", "tablet"),
    ("Windows", "desktop"),
    ("Macintosh", "desktop"),
    ("CrOS", "desktop"),
    ("X11", "desktop"),
    ("Linux", "desktop"),
];

/// What only programs say of themselves, in lower case. The first six catch most: crawlers call themselves one, or give
/// the address of a page that explains them.
const BOT_TOKENS: &[&str] = &[
    "bot",
    "crawl",
    "spider",
    "http://",
    "https://",
    "preview",
    // Search engines, archives, AI: those that the words above miss.
    "slurp",
    "googleother",
    "google-",
    "mediapartners",
    "feedfetcher",
    "gpt-",
    "chatgpt-user",
    "claude-user",
    "perplexity-user",
    "anthropic-ai",
    "meta-external",
    "ia_archiver",
    "archive.org",
    "bytespider",
    "ahrefs",
    "semrush",
    "dataprovider",
    // Link previews of messengers and networks.
    "facebookexternalhit",
    "facebookcatalog",
    "whatsapp/",
    "slack-imgproxy",
    "embedly",
    "iframely",
    "vkshare",
    "mastodon/",
    "bitlybot",
    "cfnetwork",
    // Monitors and scanners.
    "lighthouse",
    "pingdom",
    "uptime",
    "statuscake",
    "monitor",
    "validator",
    "scanner",
    "nmap",
    "masscan",
    "zgrab",
    "censys",
    "nikto",
    "sqlmap",
    // Driven browsers.
    "headlesschrome",
    "phantomjs",
    "puppeteer",
    "playwright",
    "selenium",
    // Tools and libraries.
    "curl/",
    "wget",
    "httpie/",
    "postman",
    "insomnia/",
    "python",
    "aiohttp",
    "httpx",
    "scrapy",
    "go-http-client",
    "java/",
    "okhttp",
    "httpclient",
    "libwww",
    "lwp::",
    "node-fetch",
    "axios/",
    "undici",
    "got (",
    "guzzle",
    "php/",
    "ruby",
    "faraday",
    "reqwest",
    "hyper/",
    "dart/",
    "powershell",
    "wrk/",
    "apachebench",
    "k6/",
];

/// Phones whose name holds what looks like a bot's.
const NO_BOTS: &[&str] = &["cubot"];

/// Reads a `User-Agent` header; an empty one is a bot's, for every browser sends one.
pub fn parse(header: &str) -> UserAgent {
    UserAgent {
        browser: first(BROWSERS, header).unwrap_or(OTHER),
        operating_system: first(OPERATING_SYSTEMS, header).unwrap_or(OTHER),
        device: first(DEVICES, header).unwrap_or(OTHER_DEVICE),
        bot: is_bot(header),
    }
}

fn first(table: Table, header: &str) -> Option<&'static str> {
    table.iter().find(|(token, _)| header.contains(token)).map(|&(_, name)| name)
}

fn is_bot(header: &str) -> bool {
    let mut header = header.trim().to_ascii_lowercase();
    for phone in NO_BOTS {
        header = header.replace(phone, "");
    }
    header.is_empty() || BOT_TOKENS.iter().any(|token| header.contains(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cases: &str, bot: bool) {
        let cases: Vec<_> = cases.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert!(cases.len() >= 10, "there is something to check");
        for case in cases {
            let mut parts = case.splitn(4, " | ");
            let expected = [parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap()];
            let header = parts.next().unwrap();
            let UserAgent { browser, operating_system, device, bot: found } = parse(header);
            assert_eq!([browser, operating_system, device], expected, "{header}");
            assert_eq!(found, bot, "{header}");
        }
    }

    #[test]
    fn browsers_of_people_are_told_apart() {
        check(include_str!("user_agent/people.txt"), false);
    }

    #[test]
    fn crawlers_previews_and_tools_are_bots() {
        let headers: Vec<_> = include_str!("user_agent/bots.txt").lines().filter(|line| !line.is_empty()).collect();
        assert!(headers.len() >= 50, "there is something to check");
        for header in headers {
            assert!(parse(header).bot, "{header}");
        }
    }

    #[test]
    fn no_user_agent_is_a_bot_that_nothing_is_known_of() {
        for header in ["", "  "] {
            let expected = UserAgent { browser: OTHER, operating_system: OTHER, device: OTHER_DEVICE, bot: true };
            assert_eq!(parse(header), expected);
        }
    }
}
