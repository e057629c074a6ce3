"""Small texts of our own for the test of hard-wrapped prose: texts whose lines must stay, and prose to be wrapped."""

import re
from inspect import cleandoc

KEPT = {
    name: cleandoc(text)
    for name, text in {
        "python": """
            import json

            def load(path, strict=True):
                with open(path) as file:
                    return json.load(file)

            class Store:
                def __init__(self, root):
                    self.root = root

                def get(self, key):
                    return load(self.root / f"{key}.json")
            """,
        "python with a long docstring": '''
            """Read the gauge of the lower lock and write one row a minute into the
            table of the day. The table is rotated at midnight, and the rows of the
            day before are packed, so that a year takes less than a megabyte on the
            disk of the small computer in the house beside the water."""

            import csv
            import time

            def read(gauge):
                return gauge.value()

            def main(gauge, path, pause=60):
                with open(path, "a") as file:
                    writer = csv.writer(file)
                    while True:
                        writer.writerow([time.time(), read(gauge)])
                        time.sleep(pause)

            if __name__ == "__main__":
                main(Gauge(), "level.csv")
            ''',
        "javascript": """
            const gates = new Map();
            export function open(name) {
              const gate = gates.get(name);
              if (!gate) {
                throw new Error(`no gate ${name}`);
              }
              gate.state = "open";
              return gate;
            }
            """,
        "c": """
            #include <stdio.h>

            /* The level of the upper pound, in centimetres above the sill of the lower
             * gate; negative while the lock is emptied for repairs in the winter, when
             * nobody reads the gauge and the last value stays. */
            static int level = 0;

            int main(void) {
                printf("%d\\n", level);
                return 0;
            }
            """,
        "shell": """
            #!/bin/sh
            set -e
            for name in lower upper middle; do
              echo "checking $name"
              curl -fsS "https://example.org/gates/$name" > "$name.json"
            done
            git add . && git commit -m "Update gates"
            """,
        "sql": """
            SELECT name, max(level) AS highest
            FROM readings
            JOIN gates ON gates.id = readings.gate
            WHERE read_at > now() - interval '7 days'
            GROUP BY name
            ORDER BY highest DESC
            """,
        "rust": """
            fn fill(pound: &mut Pound, rate: f64) -> Result<(), Error> {
                while pound.level < pound.top {
                    pound.level += rate;
                }
                Ok(())
            }
            """,
        "html": """
            <ul class="gates">
              <li>lower gate, repaired in the spring of the year before last</li>
              <li>upper gate, which will be replaced when the money is there</li>
            </ul>
            """,
        "verse with capitals": """
            The water rises in the narrow chamber,
            The keeper leans his weight against the beam,
            And every boat that waited in November
            Goes slowly up the staircase of the stream.

            The winter came and shut the upper pound,
            The ice lay grey between the silent gates,
            And nothing moved, and there was not a sound
            Except the river, where the heron waits.
            """,
        "free verse": """
            i have opened
            the gate that
            you said would
            not open

            and the water
            came in as
            if it had been
            asked
            """,
        "free verse of long lines": """
            the morning came along the towpath with its hands full of steam
            and nobody in the house beside the lock had slept
            we counted boats
            we counted the men who leaned on the beams and said nothing
            there were eleven, or there were twelve if you believe the child
            who saw a boat without a light go down before the dawn
            and would not say what colour it had been
            """,
        "couplets": """
            they said the river had forgotten how to run
            and lay there like a mirror in the sun

            we threw a stone to wake it from its sleep
            the rings went out and out, and they were deep

            my father had a word for such a day
            he took it with him when he went away
            """,
        "blank verse": """
            we came at evening to the quiet basin
            where forty boats lay moored along the wall
            and every cabin had a yellow window
            and every window had a face in it
            my brother knew them all and called their names
            and none of them would answer him that night
            for there had been a drowning at the gate
            and no one speaks before the third day passes
            """,
        "haiku": "an old silent lock\na boat leaves the open gate\nwater remembers",
        "german verse": """
            Der Nebel liegt so weiß auf allen Wiesen,
            Die Schleuse schweigt, das Wasser steht im Tor,
            Und aus dem Schilf, als wollt es uns begrüßen,
            Steigt leise noch ein altes Lied empor.
            """,
        "chinese verse": """
            春江潮水连海平，海上明月共潮生。
            滟滟随波千万里，何处春江无月明。
            江流宛转绕芳甸，月照花林皆似霰。
            空里流霜不觉飞，汀上白沙看不见。
            """,
        "chinese lines": "河边\n小屋\n老人",
        "japanese song": """
            春のうらゝの川の上
            のぼりくだりの船人が
            かいのしづくも花と散る
            眺めを何にたとへよう
            """,
        "chat": "user: hello, is anybody there?\nassistant: yes, how can I help you today?\nuser: no idea",
        "chat of long turns": """
            user: could you tell me when the lower lock will be open again after the repairs
            assistant: it opens on the first of April, but only for boats below twenty metres
            user: and what about the longer ones, mine is twenty-four metres and I cannot wait
            assistant: they have to go round by the river until the upper gate is finished too
            user: that is a detour of three days, is there no other way for us to get through
            """,
        "chat of names": """
            Mary Ann: did you see the heron this morning on the beam of the upper gate?
            Tom: no, I slept until nine, nobody came through before half past eight.
            Mary Ann: it stood there for an hour and looked at me as if I owed it a fish
            Tom: you probably do, after what happened with the bucket in the autumn
            """,
        "irc": """
            <anna> does anybody have the key of the boat house, I cannot find it here
            <tom> it hangs behind the door where it has been for the last eleven years
            <anna> not there, and the window is open and there is water on the floor
            <tom> then call the police and do not touch anything before they have come
            """,
        "chinese chat": "用户：你好，请问水闸什么时候开放？\n助手：每天早上八点到晚上六点开放。\n用户：谢谢。",
        "play": """
            KEEPER. Who goes there in the dark without a light upon the bow?
            BOATMAN. A friend, or what will pass for one until the morning comes.
            KEEPER. Then wait until the morning, friend, and sleep where you have moored.
            BOATMAN. I cannot sleep. There is a man behind me on the path.
            """,
        "log": """
            2026-03-01 04:12:09 INFO gate.lower opened by the schedule of the night shift
            2026-03-01 04:31:44 INFO gate.lower closed by the schedule of the night shift
            2026-03-01 04:32:10 WARN gate.upper has not answered within thirty seconds
            2026-03-01 04:32:40 ERROR gate.upper has not answered within sixty seconds
            """,
        "syslog": """
            Mar  1 04:12:09 lockhouse kernel: usb 1-1: new high-speed device number 4 found
            Mar  1 04:12:10 lockhouse gauged: opened the device and read the first value
            Mar  1 04:12:11 lockhouse gauged: value of the lower gauge is out of its range
            """,
        "bare log": """
            gate lower opened by schedule and reported its state to the house
            gate lower closed by schedule and reported its state to the house
            gate upper opened by schedule and reported its state to the house
            gate upper closed by schedule and reported its state to the house
            """,
        "yaml": """
            gates:
              - name: lower
                width: 5.2
                notes: repaired in the spring of the year before last
              - name: upper
                width: 5.0
            schedule:
              open: "08:00"
              close: "18:00"
            """,
        "ini": """
            [gauge]
            device = /dev/ttyUSB0
            pause = 60
            ; the table is rotated at midnight
            table = /var/lib/gauge/level.csv
            """,
        "json": '{\n  "gates": [\n    {"name": "lower", "open": true},\n    {"name": "upper", "open": false}\n  ]\n}',
        "csv": """
            name,width,depth,keeper,remark
            lower,5.2,2.1,Anna,repaired in the spring of the year before last
            upper,5.0,2.0,Tom,will be replaced when the money is there at last
            middle,5.1,2.2,Anna,closed on Sundays and on the days of the feast
            """,
        "csv of words": """
            alpha,beta,gamma,delta,epsilon,zeta,eta,theta,iota
            kappa,lambda,mu,nu,xi,omicron,pi,rho,sigma,tau,ups
            true,false,true,false,true,false,true,false,false,
            false,false,true,false,true,false,true,false,true,
            """,
        "table": """
            gate      width   keeper   remark
            lower     5.2     Anna     repaired in the spring
            middle    5.1     Anna     closed on Sundays
            upper     5.0     Tom      to be replaced soon
            """,
        "table with bars": """
            | gate   | width | keeper |
            |--------|-------|--------|
            | lower  | 5.2   | Anna   |
            | upper  | 5.0   | Tom    |
            """,
        "numbered with brackets": "1) one\n2) two",
        "numbered": """
            1. Close the lower gate and make sure that nobody stands on the beam of it.
            2. Open the paddles of the upper gate slowly, first the ground paddles only.
            3. Wait until the levels are equal, which takes about seven or eight minutes.
            4. Open the upper gate, let the boat go out, and close the paddles behind it.
            """,
        "bullets": """
            - a rope of at least twenty metres, and a second one for the bow
            - a windlass, which you can borrow from the keeper for a deposit
            - gloves, because the beams are cold in the morning and wet too
            - patience
            """,
        "chinese numbered": "一、关闭下闸门，确认无人站在闸门横梁上。\n二、缓慢打开上闸门的阀门。\n三、等待水位持平。",
        "check list": "[ ] close the lower gate\n[x] open the paddles\n[ ] wait for the level",
        "changelog": """
            1.4.0 (2026-03-01)
            * Add the gauge of the middle gate
            * Fix the rotation of the table at midnight when the clock is changed
            1.3.2 (2026-01-14)
            * Fix a crash without a network
            """,
        "git log": """
            7f3a1c2 Add the gauge of the middle gate and a test for it
            90b2e4d Rotate the table at midnight and pack the day before
            c41d8aa Read the device again when it has been disconnected
            e02b7f9 Write the schedule of the night shift into the table
            """,
        "sentences by line": """
            The keeper of the lower lock had lived in the house for thirty years.
            In that time he had seen the river rise above the second step only twice.
            He wrote both dates on the door frame with a nail.
            Every visitor was shown them before anything else.
            Nobody had ever asked him why he had not moved away.
            He would not have known what to answer.
            """,
        "paragraphs by line": "\n".join(
            [
                "The keeper of the lower lock had lived in the small house beside the water for thirty years, and in "
                "that time he had seen the river rise above the second step only twice.",
                "He wrote both dates on the door frame with a nail.",
                "Every visitor was shown them before anything else, and most of them were polite enough to bend down "
                "and to say that it was hard to believe, with the water lying so far below and so still.",
            ]
        ),
        "headlines": """
            Council votes to repair the upper gate before the summer
            Heron returns to the basin after eleven years of absence
            Keeper of the lower lock retires and leaves for the coast
            New timetable for boats above twenty metres from Monday on
            """,
        "addresses": """
            Anna Berger
            Lock House No. 3
            Towpath Lane
            Upper Basin

            Tom Hale
            The Boat Yard
            Canal Street 14
            Lower Basin
            """,
        "recipe": """
            200 g flour
            3 eggs
            half a litre of milk
            a pinch of salt

            Mix the flour with the milk.
            Beat the eggs and add them.
            Fry thin pancakes in butter.
            """,
        "subtitles": """
            1
            00:00:01,000 --> 00:00:04,200
            the water is rising
            faster than we thought

            2
            00:00:05,000 --> 00:00:08,100
            then close the gate
            before it is too late
            """,
        "word list": "lock\ngate\nbeam\npaddle\nsluice\npound\nbasin\ntowpath\nwindlass\nheron",
        "urls": """
            https://example.org/gates/lower/level?from=2026-03-01&to=2026-03-07
            https://example.org/gates/upper/level?from=2026-03-01&to=2026-03-07
            https://example.org/gates/middle/level?from=2026-03-01&to=2026-03-07
            """,
        "quoted mail": """
            > I have looked for the key behind the door and it is not there, and the
            > window of the boat house is open, and there is water on the floor, and
            > I do not know whom to call at this hour of the night except for you.
            """,
        "markdown": "# Gates\n\nThe lower gate\nis closed.\n\n- one\n- two\n",
        "ascii art": "  /\\_/\\\n ( o.o )\n  > ^ <",
        "list of things in small letters, nearly equal in length": """
            apples from the orchard near the old mill
            pears that were picked in early september
            plums which nobody wanted to have anymore
            grapes from the south side of the terrace
            cherries out of the garden of a neighbour
            """,
        "things to do in small letters, nearly equal in length": """
            fix the parser when the header is missing in a file
            add a test for the empty configuration of the server
            move the helpers for paths into a module of their own
            rename the option that names the folder of results
            drop the support of python versions before three ten
            """,
        "orders in small letters, as long as lines of prose": """
            carry the ledger of the lower lock up to the office of the house
            paint the rail of the upper lock before the boats come in autumn
            grease the wheels of both gates and write the date into the book
            clear the leaves from the screen that stands before the turbine
            """,
    }.items()
}

LANGUAGES = {
    "en": "The keeper of the lower lock had lived in the small house beside the water for thirty years, and in that "
    "time he had seen the river rise above the second step only twice. He wrote both dates on the door frame with a "
    "nail, and every visitor was shown them before anything else. Most of them w"
    "ere polite enough to bend down and to "
    "say that it was hard to believe, with the water lying so far below and so still.",
    "de": "Der Wärter der unteren Schleuse wohnte seit dreißig Jahren in dem kleinen Haus am Wasser, und in dieser "
    "Zeit hatte er den Fluss nur zweimal über die zweite Stufe steigen sehen. Be"
    "ide Tage ritzte er mit einem Nagel in "
    "den Türrahmen, und jeder Besucher bekam sie zu sehen, bevor man ihm einen S"
    "tuhl anbot. Die meisten waren höflich "
    "genug, sich zu bücken und zu sagen, dass man es kaum glauben könne.",
    "fr": "Le gardien de l’écluse basse habitait depuis trente ans la petite maison au bord de l’eau, et pendant tout "
    "ce temps il n’avait vu que deux fois la rivière monter au-dessus de la deuxième marche. Il avait gravé les deux "
    "dates avec un clou dans le cadre de la porte, et chaque visiteur devait les regarder avant toute autre chose.",
    "es": "El guardián de la esclusa de abajo vivía desde hacía treinta años en la casita junto al agua, y en todo ese "
    "tiempo solo había visto dos veces subir el río por encima del segundo escal"
    "ón. Grabó las dos fechas con un clavo "
    "en el marco de la puerta, y a cada visitante se las enseñaba antes que cualquier otra cosa.",
    "ru": "Смотритель нижнего шлюза тридцать лет прожил в маленьком доме у воды, и за это время он только два раза "
    "видел, как река поднялась выше второй ступени. Обе даты он нацарапал гвоздём на дверном косяке, и каждому гостю "
    "показывал их прежде всего остального. Почти все были так вежливы, что наклонялись и говорили, что в это трудно "
    "поверить.",
    "el": "Ο φύλακας της κάτω δεξαμενής ζούσε τριάντα χρόνια στο μικρό σπίτι δίπλα στο νερό, και σε όλο αυτό το "
    "διάστημα είχε δει μόνο δύο φορές το ποτάμι να ανεβαίνει πάνω από το δεύτερο σκαλοπάτι. Χάραξε και τις δύο "
    "ημερομηνίες με ένα καρφί στο κούφωμα της πόρτας, και κάθε επισκέπτης τις έβλεπε πρώτες.",
    "hi": "निचले जलद्वार का रखवाला तीस साल से पानी के किनारे के छोटे से घर में रहता था, और इतने समय में उसने नदी को दूसरी "
    "सीढ़ी से ऊपर चढ़ते हुए केवल दो बार देखा था। उसने दोनों तारीखें एक कील से दरवाज़"
    "े की चौखट पर लिख दी थीं, और हर आने वाले "
    "को सबसे पहले वही दिखाई जाती थीं। अधिकतर लोग "
    "झुककर कहते थे कि इस पर विश्वास करना कठिन है।",
    "ko": "아래 수문의 문지기는 물가의 작은 집에서 삼십 년을 살았고, 그동안 강물이 둘째 계단 위로 올라오는 것을 "
    "단 두 번 "
    "보았다. 그는 두 날짜를 못으로 문틀에 새겨 두었고, 찾아오는 손님마다 다른 무엇"
    "보다 먼저 그것을 보여 주었다. 손님들은 "
    "대개 몸을 굽히고 믿기 어렵다고 말해 줄 만큼 예의가 발랐다.",
    "zh": "下闸的看守人在水边的小屋里住了三十年，这些年里，他只有两次"
    "看见河水漫过第二级台阶。他用一枚钉子把这两个日期刻在门框上，"
    "每位来访的客人都要先看一看，然后才能坐下来喝茶。客人们大多很有礼貌，弯下腰去，说"
    "真是难以相信，因为河水此刻还在很低的地方，"
    "静静地躺着，连一片树叶也不动。他从来不问他们是不是真的相信。",
    "ja": "下の水門の番人は水辺の小さな家に三十年住んでいたが、そのあい"
    "だに川の水が二段目の石段を越えるのを見たのは二度だけだった。"
    "彼はその二つの日付を釘で戸口の柱に刻みつけ、訪れる人には何よりも先にそれを見せ"
    "た。客はたいてい礼儀正しく腰をかがめて、"
    "とても信じられないと言った。水ははるか下のほうで、木の葉一枚動かさずに静まりかえっていたからである。",
    "th": "คนเฝ้าประตูน้ำด้านล่างอาศัยอยู่ในบ้านหลังเล็กริมน้ำมาสามสิบปีแล้ว "
    "และตลอดเวลานั้นเขาเห็นแม่น้ำเอ่อล้นขึ้นมาเหนือบันไดขั้นที่สองเพียงสองครั้งเท่านั้น "
    "เขาใช้ตะปูสลักวันที่ทั้งสองไว้ที่กรอบประตู และแขกทุกคนที่มาเยือนจะต้องได้ดูก่อนสิ่งอื่นใด",
}

_MARKED_MAIL = cleandoc("""
    From: Anna Berger
    To: Tom Hale
    Subject: the key of the boat house

    Dear Tom,

    I have looked for the key behind the door, where it has been for the last~
    eleven years, and it is not there. The window of the boat house is open,~
    and there is water on the floor, although it has not rained since Sunday.

    Could you please come over before noon? I have to be at the upper gate by~
    one o'clock, because they want to start with the repairs and nobody else~
    has the plans. These are the things that I would bring:

    - the long rope
    - a lamp, because there is no light in the back room and the windows are~
      covered with boards
    - your boots

    Best wishes
    Anna
    Lock House No. 3
    """)
MAIL = _MARKED_MAIL.replace("~", ""), re.sub(r"~\n *", " ", _MARKED_MAIL)
"""A mail as it was sent, and unwrapped."""
