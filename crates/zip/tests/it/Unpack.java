import java.io.BufferedInputStream;
import java.io.FileInputStream;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipInputStream;

/** Prints number of entries and a CRC over names and contents, once read as a stream and once as a file. */
public class Unpack {
    private static void add(CRC32 crc, String name, InputStream content) throws Exception {
        crc.update(name.getBytes(StandardCharsets.UTF_8));
        crc.update(0);
        crc.update(content.readAllBytes());
    }

    public static void main(String[] paths) throws Exception {
        for (String path : paths) {
            int entries = 0;
            CRC32 crc = new CRC32();
            try (ZipInputStream zip = new ZipInputStream(new BufferedInputStream(new FileInputStream(path)))) {
                for (ZipEntry entry; (entry = zip.getNextEntry()) != null; entries++) {
                    add(crc, entry.getName(), zip);
                }
            }
            System.out.println("stream " + entries + " " + crc.getValue());
            entries = 0;
            crc.reset();
            try (ZipFile zip = new ZipFile(path)) {
                for (ZipEntry entry : Collections.list(zip.entries())) {
                    try (InputStream content = zip.getInputStream(entry)) {
                        add(crc, entry.getName(), content);
                    }
                    entries++;
                }
            }
            System.out.println("file " + entries + " " + crc.getValue());
        }
    }
}
